"""Takes what has expired off the disk: partitions of detail, payloads and keys, and hours of figures.

Nothing goes that does not add up to what was recorded, and what went is written down in the same transaction.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import Enum
from typing import NamedTuple

from psycopg import Connection, errors
from psycopg.types.json import Jsonb

from services.common.uuid7 import new_uuid7
from services.ledger.retention.retention import DAY, Kept, Mismatch, Place, Sums, end_of, retention_class
from services.ledger.storage import partitions
from services.ledger.storage.books import control_totals
from services.ledger.storage.partitions import Partition
from services.ledger.storage.usage import day_figures

# A drop needs its tables for itself, for a moment. Whoever writes meanwhile waits no longer than this for it to begin,
# and it gives way before anybody's deadlock is looked for.
LOCK_TIMEOUT = "300ms"
# Adding up a day takes a second per million records.
STATEMENT_TIMEOUT = "10min"


class Outcome(Enum):
    """What became of an attempt to let something expire."""

    DONE = "done"
    # Somebody was reading or writing; trying again soon is right.
    BUSY = "busy"
    # It does not add up, and stays.
    MISMATCH = "mismatch"
    # Somebody may still see some of it: it has to be moved first.
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an attempt, and of how many rows."""

    outcome: Outcome
    rows: Mapping[Kept, int] = field(default_factory=dict)
    mismatches: Sequence[Mismatch] = ()
    # Whose records somebody may still see.
    seen_by: Sequence[str] = ()


class Gone(NamedTuple):
    """Rows of one organization that are no more."""

    organization_id: str
    day: date
    kind: Kept
    partition_name: str
    row_count: int
    # None for what has no sums.
    sums: Sums | None


_WRITE_DOWN = """
    INSERT INTO ledger.expiry
           (organization_id, day, kind, expiry_id, expire_time, partition_name, row_count,
            record_count, unpriced_count, cost_pico, saved_pico, charged_pico)
    SELECT organization_id, day, kind, %s, %s, partition_name, row_count,
           record_count, unpriced_count, cost_pico, saved_pico, charged_pico
      FROM unnest(
               %s::uuid[], %s::date[], %s::smallint[], %s::text[], %s::bigint[],
               %s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[]
           ) AS gone (organization_id, day, kind, partition_name, row_count,
                      record_count, unpriced_count, cost_pico, saved_pico, charged_pico)
     ORDER BY day, organization_id, kind
"""
_PROBLEM = """
    INSERT INTO ledger.retention_problem (organization_id, day, kind, expected, found, first_time, last_time)
    VALUES (%(organization_id)s::uuid, %(day)s, %(kind)s, %(expected)s, %(found)s, %(now)s, %(now)s)
    ON CONFLICT (organization_id, day, kind) DO UPDATE
       SET expected = excluded.expected, found = excluded.found, last_time = excluded.last_time
"""
_SOLVED = """
    DELETE FROM ledger.retention_problem
     WHERE day = %s AND kind = %s AND organization_id = ANY (%s::uuid[])
"""
# Who was active on a day, and from when on they see their records.
_ACTIVE = """
    SELECT organization_id::text, retention_days, ledger.kept_since(%(now)s, retention_days, retention_floor)
      FROM reporting.organization JOIN ledger.record_day USING (organization_id)
     WHERE day = %(day)s
"""
_DAY_TOTALS = """
    SELECT count(*), sum(record_count), sum(unpriced_count), sum(cost_pico), sum(saved_pico), sum(charged_pico)
      FROM ledger.record_day WHERE day = %s
"""
_PAYLOADS = """
    SELECT organization_id::text, count(*) FROM ledger.payload
     WHERE retention_class = %s AND request_day = %s GROUP BY organization_id
"""
_KEYS = "SELECT organization_id::text, count(*) FROM ledger.record_key WHERE request_day = %s GROUP BY organization_id"


# Detail and payloads


class _Inspection(NamedTuple):
    """What a place holds, seen at one moment."""

    attempt: Attempt
    gone: list[Gone]
    # Whose records are there, or should be.
    organization_ids: Collection[str]
    # Changes with everything that is recorded of the day.
    day_totals: object


def drop_place(connection: Connection, place: Place, now: datetime) -> Attempt:
    """Drops the partitions of a place that has expired, its payloads first."""
    with _snapshot(connection):
        inspection = _inspect(connection, place, now)
    if inspection.attempt.outcome is not Outcome.DONE:
        return inspection.attempt
    try:
        with connection.transaction():
            _lock(connection, "ledger.usage_record", "ledger.payload")
            # Nobody is recording now. If somebody was since the place was looked at, what was seen is no longer all.
            if _day_totals(connection, place.day) != inspection.day_totals:
                return Attempt(Outcome.BUSY)
            write_down(connection, inspection.gone, now)
            take_back_problems(connection, place.day, Kept.DETAIL, inspection.organization_ids)
            for partition in (partitions.of_payloads(place), partitions.of_detail(place)):
                if partitions.exists(connection, partition):
                    partitions.drop(connection, partition)
    except errors.LockNotAvailable:
        return Attempt(Outcome.BUSY)
    return inspection.attempt


def _inspect(connection: Connection, place: Place, now: datetime) -> _Inspection:
    here = control_totals.detail_at(connection, place)
    seen_by, belonging = [], set(here)
    for organization_id, retention_days, kept_since in connection.execute(_ACTIVE, {"now": now, "day": place.day}):
        if retention_class(retention_days) == place.retention_class:
            belonging.add(organization_id)
        if organization_id in here and kept_since < end_of(place.day):
            seen_by.append(organization_id)
    elsewhere = [one for one in partitions.places(connection) if one.day == place.day and one != place]
    mismatches = control_totals.detail_mismatches(connection, place.day, here, sorted(belonging), elsewhere)
    gone = _payloads_at(connection, place) + [
        Gone(one, place.day, Kept.DETAIL, partitions.of_detail(place).name, sums.record_count, sums)
        for one, sums in sorted(here.items())
    ]
    return _Inspection(_verdict(gone, mismatches, seen_by), gone, belonging, _day_totals(connection, place.day))


def _verdict(gone: Sequence[Gone], mismatches: Sequence[Mismatch], seen_by: Sequence[str]) -> Attempt:
    if mismatches:
        return Attempt(Outcome.MISMATCH, mismatches=mismatches)
    if seen_by:
        return Attempt(Outcome.SEEN, seen_by=seen_by)
    return Attempt(Outcome.DONE, count_rows(gone))


def _payloads_at(connection: Connection, place: Place) -> list[Gone]:
    name = partitions.of_payloads(place).name
    counts = connection.execute(_PAYLOADS, place).fetchall()
    return [Gone(one, place.day, Kept.PAYLOAD, name, count, None) for one, count in sorted(counts)]


def _day_totals(connection: Connection, day: date) -> object:
    return connection.execute(_DAY_TOTALS, (day,)).fetchone()


# Keys


def drop_keys(connection: Connection, day: date, now: datetime) -> Attempt:
    """Drops the keys of a day whose repeats need not be recognised any more."""
    partition: Partition = partitions.of_keys(day)
    with _snapshot(connection):
        counts = sorted(connection.execute(_KEYS, (day,)).fetchall())
    gone = [Gone(one, day, Kept.KEYS, partition.name, count, None) for one, count in counts]
    try:
        with connection.transaction():
            _lock(connection, "ledger.record_key")
            write_down(connection, gone, now)
            partitions.drop(connection, partition)
    except errors.LockNotAvailable:
        return Attempt(Outcome.BUSY)
    return Attempt(Outcome.DONE, count_rows(gone))


# Records that were set aside

_DELETE_REJECTED = """
    DELETE FROM ledger.rejected_record
     WHERE record_hash IN (
           SELECT record_hash FROM ledger.rejected_record WHERE receipt_time < %s ORDER BY receipt_time LIMIT %s
           )
"""


def delete_rejected(connection: Connection, before: datetime, limit: int) -> int:
    """Deletes the oldest that were received before this moment, up to the limit, and returns how many."""
    return connection.execute(_DELETE_REJECTED, (before, limit)).rowcount


# Hours of figures

# Where figures begin that nobody sees any more. Whole days, but for organizations whose plan has just changed.
_HOURS_DUE = """
    SELECT organization_id::text, first_hour, kept_from
      FROM (
           SELECT organization_id, retention_floor,
                  date_trunc('hour', ledger.kept_since(%(now)s, retention_days, retention_floor), 'UTC') AS kept_from,
                  (SELECT hour FROM ledger.usage_hour AS figures
                    WHERE figures.organization_id = organization.organization_id ORDER BY hour LIMIT 1) AS first_hour
             FROM reporting.organization
           ) AS due
     WHERE organization_id <> ALL (%(without)s::uuid[])
       AND first_hour < CASE WHEN retention_floor IS NULL THEN date_trunc('day', kept_from, 'UTC') ELSE kept_from END
     ORDER BY first_hour LIMIT %(limit)s
"""
_DELETE_HOURS = """
    WITH gone AS (
        DELETE FROM ledger.usage_hour
         WHERE organization_id = %s::uuid AND hour >= %s AND hour < %s
        RETURNING request_count, unpriced_count, cost_pico, saved_pico, charged_pico
    )
    SELECT count(*), sum(request_count), sum(unpriced_count), sum(cost_pico), sum(saved_pico), sum(charged_pico)
      FROM gone
"""


class HoursDue(NamedTuple):
    """Figures of one organization that nobody sees any more: from the day of the first to the end."""

    organization_id: str
    day: date
    # Not past the end of the day.
    end: datetime


def hours_due(connection: Connection, now: datetime, limit: int, without: Collection[str]) -> list[HoursDue]:
    """The oldest day of up to `limit` organizations, but for some, that have figures which have expired."""
    values = {"now": now, "limit": limit, "without": sorted(without)}
    rows = connection.execute(_HOURS_DUE, values).fetchall()
    return [
        HoursDue(organization_id, first.astimezone(UTC).date(), min(kept_from, end_of(first.astimezone(UTC).date())))
        for organization_id, first, kept_from in rows
    ]


def delete_hours(connection: Connection, due: HoursDue, now: datetime) -> Attempt:
    """Deletes the figures of an organization's day up to the end; those by the day are then what is left of it."""
    start = datetime.combine(due.day, time(), UTC)
    try:
        with unchanging(connection):
            there = control_totals.hours_between(connection, due.organization_id, start, start + DAY)
            mismatch = _hours_mismatch(connection, due, there)
            if mismatch is not None:
                return Attempt(Outcome.MISMATCH, mismatches=[mismatch])
            row = connection.execute(_DELETE_HOURS, (due.organization_id, start, due.end)).fetchone()
            row_count, *sums = (int(value or 0) for value in row or ())
            day_figures.leave_rest(connection, due.organization_id, due.day, due.end)
            gone = [Gone(due.organization_id, due.day, Kept.HOURS, "", row_count, Sums(*sums))]
            write_down(connection, gone, now)
            take_back_problems(connection, due.day, Kept.HOURS, [due.organization_id])
    except errors.SerializationFailure:
        return Attempt(Outcome.BUSY)
    return Attempt(Outcome.DONE, count_rows(gone))


def _hours_mismatch(connection: Connection, due: HoursDue, found: Sums) -> Mismatch | None:
    recorded = control_totals.recorded(connection, due.day).get(due.organization_id, Sums())
    expired = control_totals.expired(connection, due.day, Kept.HOURS).get(due.organization_id, Sums())
    expected = recorded.minus(expired)
    return None if expected == found else Mismatch(due.organization_id, due.day, Kept.HOURS, expected, found)


# What is written down


def write_down(connection: Connection, gone: Sequence[Gone], now: datetime) -> None:
    """Adds to `ledger.expiry` what goes in this transaction."""
    no_sums = (None,) * len(Sums._fields)
    rows = [(*one[:5], *(no_sums if one.sums is None else one.sums)) for one in gone if one.row_count]
    if rows:
        columns = (list(column) for column in zip(*rows, strict=True))
        connection.execute(_WRITE_DOWN, (new_uuid7(), now, *columns))


def take_back_problems(connection: Connection, day: date, kind: Kept, organization_ids: Collection[str]) -> None:
    """These add up now."""
    connection.execute(_SOLVED, (day, int(kind), sorted(organization_ids)))


def write_problems(connection: Connection, mismatches: Sequence[Mismatch], now: datetime) -> None:
    """Lists for an operator what was not allowed to expire."""
    for one in mismatches:
        values = {
            "organization_id": one.organization_id,
            "day": one.day,
            "kind": int(one.kind),
            "expected": Jsonb(_differing(one.expected, one.found)),
            "found": Jsonb(_differing(one.found, one.expected)),
            "now": now,
        }
        connection.execute(_PROBLEM, values)


def count_problems(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM ledger.retention_problem").fetchone()
    return int(row[0]) if row else 0


def count_rows(gone: Sequence[Gone]) -> dict[Kept, int]:
    counts: dict[Kept, int] = {}
    for one in gone:
        counts[one.kind] = counts.get(one.kind, 0) + one.row_count
    return counts


def _differing(sums: Sums, others: Sums) -> dict[str, str]:
    pairs = zip(Sums._fields, sums, others, strict=True)
    return {name: str(value) for name, value, other in pairs if value != other}


# Transactions


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before anything else here."""
    # A plan for any place there may be would look at all of them.
    connection.execute("SET plan_cache_mode = force_custom_plan")


@contextmanager
def unchanging(connection: Connection) -> Iterator[None]:
    """A transaction that sees one moment, and fails rather than change what another has changed since."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        yield


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    with unchanging(connection):
        connection.execute("SET TRANSACTION READ ONLY")
        yield


def _lock(connection: Connection, *tables: str) -> None:
    """Keeps everybody out. All come by the table and lock it before a partition, so the partitions need no locks."""
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    for table in tables:
        connection.execute(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE".encode())
