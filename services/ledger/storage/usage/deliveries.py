"""How far producers have delivered, and what of it could not be taken. Works inside its caller's transaction."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg import Connection

from services.ledger.storage.array_literals import array_of
from services.ledger.usage.records import RecordStatus


class Log(NamedTuple):
    """One life of a producer's log."""

    producer_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that could not be taken, as it came."""

    status: RecordStatus
    reason: str
    content: bytes
    # None and 0 without a producer.
    producer_id: str | None
    epoch: int
    sequence: int


# Sorted, so that two batches lock the rows they share in one order.
_LOCK = """
    SELECT producer_id::text, epoch, committed_sequence
      FROM ledger.producer_cursor
     WHERE (producer_id, epoch) IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[]))
     ORDER BY producer_id, epoch
       FOR UPDATE
"""
_ADVANCE = """
    INSERT INTO ledger.producer_cursor (producer_id, epoch, committed_sequence)
    SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS log (producer_id, epoch, committed_sequence)
     ORDER BY producer_id, epoch
    ON CONFLICT (producer_id, epoch) DO UPDATE
       SET committed_sequence = GREATEST(producer_cursor.committed_sequence, excluded.committed_sequence)
"""
_SET_ASIDE = """
    INSERT INTO ledger.rejected_record
           (record_hash, status, reason, producer_id, epoch, sequence, record, receipt_time)
    VALUES (%s, %s, %s, %s::uuid, %s, %s, %s, %s)
    ON CONFLICT (record_hash) DO NOTHING
"""


def lock_cursors(connection: Connection, logs: Collection[Log]) -> dict[Log, int]:
    """The committed sequence of each log, 0 for new ones. Holds the rows until the transaction ends."""
    cursors = dict.fromkeys(logs, 0)
    if logs:
        producers, epochs = array_of(log.producer_id for log in logs), array_of(log.epoch for log in logs)
        for producer_id, epoch, committed_sequence in connection.execute(_LOCK, (producers, epochs)):
            cursors[Log(producer_id, epoch)] = committed_sequence
    return cursors


def advance_cursors(connection: Connection, cursors: Mapping[Log, int]) -> None:
    if cursors:
        producers, epochs = array_of(log.producer_id for log in cursors), array_of(log.epoch for log in cursors)
        connection.execute(_ADVANCE, (producers, epochs, array_of(cursors.values())))


def set_aside(connection: Connection, rejected: Iterable[Rejected], receipt_time: datetime) -> None:
    """Keeps what could not be taken, once, however often it comes."""
    rows = {hashlib.sha256(one.content).digest(): one for one in rejected}
    values = [
        (record_hash, one.status, one.reason, one.producer_id, one.epoch, one.sequence, one.content, receipt_time)
        for record_hash, one in sorted(rows.items())
    ]
    if values:
        connection.cursor().executemany(_SET_ASIDE, values)
