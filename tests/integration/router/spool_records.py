"""Records and small spools for the tests of spool and sender."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from services.common.uuid7 import new_uuid7
from services.router.spool import Batch, Spool, SpoolSettings
from services.router.spool.entry import Entry, Kind
from services.router.spool.segment import Segment
from tollgate.ledger.v1.usage_pb2 import (
    ENDPOINT_CHAT_COMPLETIONS,
    FUNDING_CREDITS,
    OUTCOME_SUCCESS,
    OUTCOME_UNKNOWN,
    RECORD_FLAG_RECOVERED,
    UsageRecord,
)

ORGANIZATION = "01890a5d-ac96-774b-bcce-b302099a8057"
API_KEY = "01890a5d-ac96-774b-bcce-b302099a8058"
# About three hundred calls to a segment.
SMALL = SpoolSettings(segment_bytes=128 * 1024, bytes_max=1024 * 1024, retry_seconds=0.05)

AT_ONCE = 20


def a_begun(request_id: str | None = None, *, workflow: str = "") -> UsageRecord:
    """The record a crash would make of a call."""
    return UsageRecord(
        request_id=request_id or str(new_uuid7()),
        organization_id=ORGANIZATION,
        project_id="default",
        api_key_id=API_KEY,
        endpoint=ENDPOINT_CHAT_COMPLETIONS,
        requested_model="openai/gpt-4.1-mini",
        outcome=OUTCOME_UNKNOWN,
        funding=FUNDING_CREDITS,
        flags=[RECORD_FLAG_RECOVERED],
        workflow=workflow,
    )


def a_finished(begun: UsageRecord | None = None) -> UsageRecord:
    """The same call, answered."""
    record = UsageRecord()
    record.CopyFrom(begun or a_begun())
    record.outcome = OUTCOME_SUCCESS
    record.status = 200
    record.usage.input_tokens = 900
    record.usage.output_tokens = 200
    del record.flags[:]
    return record


async def record_calls(spool: Spool, count: int) -> list[UsageRecord]:
    """Calls that began and finished, in order, a few at a time."""
    records: list[UsageRecord] = []
    while len(records) < count:
        begun = [a_begun() for _ in range(min(AT_ONCE, count - len(records)))]
        for record in begun:
            spool.begin(record, credit_funded=True)
        finished = [a_finished(record) for record in begun]
        await asyncio.gather(*map(spool.finish, finished))
        records += finished
    return records


async def read_all(spool: Spool) -> list[tuple[UUID, int, int, UsageRecord]]:
    """Commits everything that is unsent; returns producer, epoch, sequence and record of each."""
    read = []
    while (batch := await spool.outbox.read()) is not None:
        read += rows_of(batch)
        spool.outbox.commit(batch, batch.last_sequence)
    return read


async def read_records(spool: Spool) -> list[UsageRecord]:
    return [record for *_, record in await read_all(spool)]


def rows_of(batch: Batch) -> list[tuple[UUID, int, int, UsageRecord]]:
    return [
        (batch.epoch.producer_id, batch.epoch.number, sequence, UsageRecord.FromString(payload))
        for sequence, payload in enumerate(batch.payloads, batch.first_sequence)
    ]


def segment_paths(directory: Path) -> list[Path]:
    """The segments of the first slot, oldest first."""
    return sorted((directory / "0").glob("*.segment"))


def entries_of(path: Path) -> Sequence[Entry]:
    """The whole entries of a segment."""
    segment = Segment.load(path)
    found = [entry for entry in segment.scan() if isinstance(entry, Entry)]
    segment.close()
    return found


def finished_entries_of(path: Path) -> Sequence[Entry]:
    return [entry for entry in entries_of(path) if entry.kind is Kind.FINISHED]


def damage(path: Path, position: int) -> None:
    """Flips one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)
