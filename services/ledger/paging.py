"""How lists are asked for: how much at once, and where to go on. Pure.

A page token is opaque to clients, and good only for the filters it was made with.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from services.common.errors import InvalidRequestError
from services.common.parameters import whole_number

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
NUMBER_DIGITS_MAX = 18
_DIGEST_BYTES = 8

Item = TypeVar("Item")
Place = TypeVar("Place")


class PlaceFormat(Protocol[Place]):
    """How the place of an item in its list is written into a token."""

    def print(self, place: Place) -> str: ...

    def parse(self, text: str) -> Place:
        """Raises ValueError for what `print` never made."""


class TimeAndName(NamedTuple):
    """The place of what has no id that carries its time."""

    time: datetime
    name: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list."""

    items: list[Item]
    # Empty on the last page.
    next_page_token: str


@dataclass(frozen=True, slots=True)
class PageRequest(Generic[Place]):
    """The page that was asked for."""

    limit: int
    # The last item of the page before; None on the first one.
    after: Place | None
    _format: PlaceFormat[Place]
    _filters_digest: bytes

    @property
    def row_count(self) -> int:
        """How many rows to read: one more than are shown tells whether more follow."""
        return self.limit + 1

    def page(self, rows: Sequence[Item], place_of: Callable[[Item], Place]) -> Page[Item]:
        """The page, from `row_count` rows or as many as there are."""
        shown = list(rows[: self.limit])
        if len(rows) <= self.limit:
            return Page(shown, "")
        place = self._format.print(place_of(shown[-1])).encode()
        return Page(shown, base64.urlsafe_b64encode(self._filters_digest + place).decode())


class _ById:
    def print(self, place: UUID) -> str:
        return place.hex

    def parse(self, text: str) -> UUID:
        return UUID(text)


class _ByTimeAndName:
    def print(self, place: TimeAndName) -> str:
        return f"{place.time.isoformat()} {place.name}"

    def parse(self, text: str) -> TimeAndName:
        time, _, name = text.partition(" ")
        parsed = datetime.fromisoformat(time)
        if parsed.tzinfo is None or not name.isprintable():
            raise ValueError
        return TimeAndName(parsed, name)


class _ByNumber:
    def print(self, place: int) -> str:
        return str(place)

    def parse(self, text: str) -> int:
        # As large as a number that the database keeps, and written only in one way.
        if not text.isascii() or not text.isdecimal() or len(text) > NUMBER_DIGITS_MAX:
            raise ValueError
        return int(text)


BY_ID: PlaceFormat[UUID] = _ById()
BY_NUMBER: PlaceFormat[int] = _ByNumber()
BY_TIME_AND_NAME: PlaceFormat[TimeAndName] = _ByTimeAndName()


def page_request(
    place_format: PlaceFormat[Place], *, limit: str, page_token: str, filters: Sequence[object]
) -> PageRequest[Place]:
    """Raises InvalidRequestError, naming the parameter. `filters` is whatever decides what is in the list."""
    digest = hashlib.sha256(repr(tuple(filters)).encode()).digest()[:_DIGEST_BYTES]
    return PageRequest(
        limit=whole_number("limit", limit, default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX),
        after=_place(place_format, page_token, digest) if page_token else None,
        _format=place_format,
        _filters_digest=digest,
    )


def _place(place_format: PlaceFormat[Place], page_token: str, digest: bytes) -> Place:
    try:
        raw = base64.b64decode(page_token, altchars=b"-_", validate=True)
        if raw[:_DIGEST_BYTES] != digest:
            raise ValueError
        return place_format.parse(raw[_DIGEST_BYTES:].decode())
    except ValueError as error:
        raise InvalidRequestError(
            "page_token", "must be the next_page_token of an answer to the same filters; leave it out to start anew"
        ) from error
