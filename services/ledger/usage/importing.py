"""History from another gateway becomes records: shown with what it costs here, charged to nobody."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import InvalidRequestError, NotFoundError
from services.ledger.storage.transactions import transaction
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.keeping import find_kept_since
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.recording import UsageRecorder
from services.ledger.usage.records import Delivery, Received, RecordFlag, RecordResult, RecordStatus

_SOURCE = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RANDOM_BITS = 74


@dataclass(frozen=True, slots=True)
class Imported:
    """One call of another gateway, on its way into the books."""

    source_id: str
    # Its id here; empty when it has none, because it is not known which call it is.
    request_id: str
    received: Received


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of one call."""

    source_id: str
    result: RecordResult


class Importer:
    """Lives as long as the service."""

    def __init__(
        self,
        database: AsyncEngine,
        writer: DatabaseWriter,
        ingest: Ingest,
        recorder: UsageRecorder,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._writer = writer
        self._ingest = ingest
        self._recorder = recorder
        self._clock = clock

    async def import_records(self, organization_id: UUID, calls: Sequence[Imported]) -> list[ImportResult]:
        """What became of each call, in their order.

        Raises NotFoundError for an unknown organization, and UnavailableError when the database is away or too much is
        waiting; importing the same again is then right, and safe.
        """
        now = self._clock()
        async with transaction(self._database) as connection:
            kept_since = await find_kept_since(connection, organization_id, now)
        if kept_since is None:
            raise NotFoundError(f"organization {organization_id}")
        for call in calls:
            _admit(call.received, kept_since, now)
        refused = [call.received.record is None for call in calls]
        taken = [call for call in calls if call.received.record is not None]
        await self._prepare_days(str(organization_id), [call.received for call in taken])
        recorded = iter(await self._record([call.received for call in taken]))
        return [
            ImportResult(call.source_id, _refused(call) if is_refused else next(recorded))
            for call, is_refused in zip(calls, refused, strict=True)
        ]

    async def _prepare_days(self, organization_id: str, received: Sequence[Received]) -> None:
        """Makes places for old days one at a time, so that calls of today get their turn in between."""
        for day in sorted({one.record.start_time.date() for one in received if one.record is not None}):
            await self._writer.run(partial(self._ingest.prepare_day, organization_id=organization_id, day=day))

    async def _record(self, received: Sequence[Received]) -> Sequence[RecordResult]:
        if not received:
            return ()
        # Another gateway's log has no place here, so only ids tell repeats.
        delivery = Delivery(producer_id=None, epoch=0, first_sequence=0, received=received)
        return (await self._recorder.record(delivery)).results


def import_id(organization_id: UUID, source: str, source_id: str, start_time: datetime) -> str:
    """The id of a call here: the same for the same call, and of its time, like every id."""
    microseconds = (start_time - _EPOCH) // _MICROSECOND
    named = "\0".join((str(organization_id), source, source_id, str(microseconds)))
    chance = int.from_bytes(blake2b(named.encode(), digest_size=16).digest()) >> (128 - _RANDOM_BITS)
    high, low = chance >> 62, chance & ((1 << 62) - 1)
    return str(UUID(int=microseconds // 1_000 << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low))


def require_source(source: str) -> None:
    if not _SOURCE.fullmatch(source):
        raise InvalidRequestError("source", "must be 1 to 64 letters, digits or ._:-")


def _admit(received: Received, kept_since: datetime, now: datetime) -> None:
    """Marks a record as imported, or takes it back with its problem when nobody would see it."""
    record = received.record
    if record is None:
        return
    if record.start_time < kept_since:
        days = (now - kept_since) // timedelta(days=1)
        received.record = None
        received.problem = f"record.start_time is older than the {days} days that the organization's retention keeps"
        return
    received.record = record._replace(flags=(*record.flags, RecordFlag.IMPORTED))


def _refused(call: Imported) -> RecordResult:
    return RecordResult(call.request_id, RecordStatus.INVALID, call.received.problem)
