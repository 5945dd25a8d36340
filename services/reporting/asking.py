"""What every question has in common: who asks, what they may look at, how far back, and how the answer leaves."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from google.protobuf.message import Message

from services.common.authentication import Caller
from services.common.grpc_calls import Context, current_caller, headers_of
from services.reporting.authorization import require_own, view_of
from services.reporting.convert import metadata_to_wire
from services.reporting.figures_query import FiguresSource
from services.reporting.parameters import optional_uuid, storable_text
from services.reporting.periods import HOUR, Timeline, floor_hour, one_period
from services.reporting.places import Places
from services.reporting.reader import Reader, Snapshot
from services.reporting.request_filter import RequestFilter
from services.reporting.request_query import Listing
from services.reporting.retention import Retention
from services.reporting.view import View

# The gateway makes a 304 of an answer that says so.
NOT_MODIFIED_HEADER = "x-tollgate-not-modified"
_DIGEST_BYTES = 16
Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Somebody asks about a view of the calls, at a moment. Lives as long as its snapshot."""

    view: View
    as_of: datetime
    snapshot: Snapshot
    # How far back is shown; over all organizations, the furthest. None where there is no organization.
    retention: Retention | None
    # Where the calls lie.
    places: Places

    @property
    def since(self) -> datetime:
        """Single calls from then on are shown. Without an organization there is nothing to show."""
        return self.as_of if self.retention is None else self.retention.kept_since

    def kept(self, timeline: Timeline) -> Timeline:
        """The periods of which anything may still be shown."""
        return timeline if self.retention is None else timeline.since(floor_hour(self.retention.kept_since))

    def listing(self, calls: RequestFilter) -> Listing:
        """The calls as far back as they are shown."""
        return Listing(calls, self.places, max(self.since, calls.since or self.since))

    async def request_count(self, listing: Listing, before: UUID | None = None) -> int:
        """How many calls are listed; of those before an id, if one is given."""
        if before is not None:
            return await self.snapshot.request_count_before(listing, before)
        # Clocks of routers may be a few minutes ahead.
        end = floor_hour(self.as_of) + 2 * HOUR
        until = listing.calls.until
        time = one_period(listing.since, end if until is None else min(end, until))
        return await self.snapshot.request_count(listing, self.source(time)) if time.periods else 0

    def source(self, timeline: Timeline) -> FiguresSource:
        """The figures of a timeline that has periods."""
        one_for_all = self.retention if self.view.organization_id is not None else None
        return FiguresSource(
            view=self.view, timeline=timeline, as_of=self.as_of, retention=one_for_all, places=self.places
        )


class Asker:
    """Opens questions. Lives as long as the service."""

    def __init__(self, reader: Reader, now: Callable[[], datetime]) -> None:
        self._reader = reader
        self.now = now

    @asynccontextmanager
    async def about(self, view: View, as_of: datetime) -> AsyncIterator[Question]:
        """Raises ForbiddenError for what is not the caller's."""
        async with self._reader.snapshot(view.organization_id) as snapshot:
            await require_own(view, current_caller(), snapshot)
            retention = await snapshot.retention(as_of)
            places = await snapshot.places(retention)
            yield Question(view=view, as_of=as_of, snapshot=snapshot, retention=retention, places=places)


def snake_view(caller: Caller, request: object) -> View:
    """What a request in snake_case is about, as far as it has such fields. Raises what `view_of` does."""

    def field(name: str) -> str:
        return storable_text(name, getattr(request, name, ""))

    return view_of(
        caller,
        organization_id=field("organization_id"),
        project_id=field("project_id"),
        api_key_id=optional_uuid("api_key_id", field("api_key_id")),
        provider=field("provider"),
        model=field("model"),
        workflow=field("workflow"),
    )


async def send(context: Context, question: Question, answer: Answer) -> Answer:
    """The answer with its headers; an empty one where the client has it already."""
    tag = f'W/"{hashlib.sha256(answer.SerializeToString(deterministic=True)).hexdigest()[: 2 * _DIGEST_BYTES]}"'
    known = headers_of(context).get("if-none-match", "")
    is_known = known == "*" or tag.removeprefix("W/") in (one.strip().removeprefix("W/") for one in known.split(","))
    headers = (
        *metadata_to_wire(question.view, question.as_of, question.retention),
        ("etag", tag),
        ("cache-control", "private, no-cache"),
    )
    await context.send_initial_metadata((*headers, (NOT_MODIFIED_HEADER, "1")) if is_known else headers)
    return type(answer)() if is_known else answer
