"""Figures by the day in PostgreSQL: what hours add up to, how long calls took, how they failed.

Questions over whole days are answered from these. Works inside its caller's transaction.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, time

from psycopg import Connection

from services.ledger.retention.retention import DAY
from services.ledger.storage import copy_binary
from services.ledger.storage.copy_binary import FixedFields
from services.ledger.usage.day_counts import CallsKey, Durations, FailureKey
from services.ledger.usage.rollups import FIGURES

# Sums

_SUMS_KEY = "organization_id, day, project_id, api_key_id, model, provider, funding, workflow"
_SUM_COLUMNS = f"{_SUMS_KEY}, {', '.join(FIGURES)}"
_SUMS_OF_HOURS = f"""
    organization_id, (hour AT TIME ZONE 'UTC')::date AS day, project_id, api_key_id, model, provider, funding, workflow,
    {", ".join(f"sum({name}) AS {name}" for name in FIGURES)}
"""
# Sorted, so that two batches lock the rows they share in the same order.
ADD_SUMS = f"""
    INSERT INTO ledger.usage_day ({_SUM_COLUMNS})
    SELECT {_SUMS_OF_HOURS} FROM pg_temp.usage_hour_staging GROUP BY {_SUMS_KEY} ORDER BY {_SUMS_KEY}
    ON CONFLICT ({_SUMS_KEY}) DO UPDATE
       SET {", ".join(f"{name} = usage_day.{name} + excluded.{name}" for name in FIGURES)}
"""  # noqa: S608 columns of ours

# Durations and failures

_CALLS_KEY = "organization_id, day, project_id, provider, model, workflow"
_FAILURE_KEY = f"{_CALLS_KEY}, status, error_type"
_CREATE_STAGING = """
    CREATE TEMPORARY TABLE IF NOT EXISTS latency_day_staging (
        organization_id UUID, day DATE, project_id TEXT, provider TEXT, model TEXT, workflow TEXT,
        latency_counts INTEGER[], time_to_first_token_counts INTEGER[]
    ) ON COMMIT DELETE ROWS
"""
_STAGE = "COPY pg_temp.latency_day_staging FROM STDIN (FORMAT BINARY)"
_ADD_DURATIONS = f"""
    INSERT INTO ledger.latency_day ({_CALLS_KEY}, latency_counts, time_to_first_token_counts)
    SELECT {_CALLS_KEY}, latency_counts, time_to_first_token_counts
      FROM pg_temp.latency_day_staging ORDER BY {_CALLS_KEY}
    ON CONFLICT ({_CALLS_KEY}) DO UPDATE
       SET latency_counts = ledger.add_counts(latency_day.latency_counts, excluded.latency_counts),
           time_to_first_token_counts =
               ledger.add_counts(latency_day.time_to_first_token_counts, excluded.time_to_first_token_counts)
"""  # noqa: S608 columns of ours
_ADD_FAILURES = f"""
    INSERT INTO ledger.failure_day ({_FAILURE_KEY}, failure_count)
    SELECT {_FAILURE_KEY}, failure_count
      FROM unnest(%s::uuid[], %s::date[], %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[],
                  %s::bigint[]) AS added ({_FAILURE_KEY}, failure_count)
     ORDER BY {_FAILURE_KEY}
    ON CONFLICT ({_FAILURE_KEY}) DO UPDATE SET failure_count = failure_day.failure_count + excluded.failure_count
"""  # noqa: S608 columns of ours
_ROW_HEAD = copy_binary.row_head(8)
_PLACE_FIELDS = FixedFields("uuid", "date")
_INT4_OID = 23
# The width of the field, how many dimensions, whether there are nulls, the type, the length and the first subscript.
_COUNTS_HEAD = struct.Struct("!iiiIii")
_COUNT = struct.Struct("!i")
_NO_COUNT = struct.pack("!ii", 4, 0)
_EPOCH_DAY = date(1970, 1, 1)


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    connection.execute(_CREATE_STAGING)


def pack_durations(days: Mapping[CallsKey, Durations]) -> bytes:
    """The counts as `add_durations` takes them; empty where there are none."""
    if not days:
        return b""
    rows = [copy_binary.BEGIN]
    for key, durations in days.items():
        rows += (
            _ROW_HEAD,
            _PLACE_FIELDS(copy_binary.uuid_bytes(key.organization_id), copy_binary.date_value(key.day)),
            *map(copy_binary.text_field, key[2:]),
            _counts_field(durations.latency),
            _counts_field(durations.time_to_first_token),
        )
    rows.append(copy_binary.END)
    return b"".join(rows)


def add_durations(connection: Connection, packed: bytes) -> None:
    """Adds to the counts that are there."""
    if packed:
        with connection.cursor().copy(_STAGE) as copy:
            copy.write(packed)
        connection.execute(_ADD_DURATIONS)


def add_failures(connection: Connection, failures: Mapping[FailureKey, int]) -> None:
    """Adds to the counts that are there."""
    if failures:
        rows = ((key[0], _EPOCH_DAY + key.day * DAY, *key[2:], count) for key, count in failures.items())
        connection.execute(_ADD_FAILURES, [list(column) for column in zip(*rows, strict=True)])


def _counts_field(counts: Mapping[int, int]) -> bytes:
    """An array whose subscripts are buckets, from the first that holds anything to the last."""
    if not counts:
        return copy_binary.bytes_field(struct.pack("!iiI", 0, 0, _INT4_OID))
    first = min(counts)
    length = max(counts) - first + 1
    # Most of them are zero.
    packed = bytearray(_COUNTS_HEAD.pack(20 + 8 * length, 1, 0, _INT4_OID, length, first) + _NO_COUNT * length)
    for bucket, count in counts.items():
        _COUNT.pack_into(packed, 28 + 8 * (bucket - first), count)
    return bytes(packed)


# Expiry

_TABLES = ("usage_day", "latency_day", "failure_day")
_SUM_UP_REST = f"""
    INSERT INTO ledger.usage_day ({_SUM_COLUMNS})
    SELECT {_SUMS_OF_HOURS} FROM ledger.usage_hour
     WHERE organization_id = %(organization_id)s::uuid AND hour >= %(end)s AND hour < %(next_day)s
     GROUP BY {_SUMS_KEY}
    ON CONFLICT DO NOTHING
"""  # noqa: S608 columns of ours
# Buckets are those of services.common.latency_buckets.
_COUNT_REST = [
    f"""
    INSERT INTO ledger.latency_day ({_CALLS_KEY}, latency_counts, time_to_first_token_counts)
    SELECT organization_id, request_day, project_id, provider, model, workflow,
           ledger.counts_of(array_agg(ledger.latency_bucket(latency_ms))),
           ledger.counts_of(array_agg(ledger.latency_bucket(time_to_first_token_ms))
               FILTER (WHERE time_to_first_token_ms IS NOT NULL))
      FROM ledger.usage_record
     WHERE organization_id = %(organization_id)s::uuid AND request_day = %(day)s AND start_time >= %(end)s
       AND outcome NOT IN (8, 9)
     GROUP BY organization_id, request_day, project_id, provider, model, workflow
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 columns of ours
    f"""
    INSERT INTO ledger.failure_day ({_FAILURE_KEY}, failure_count)
    SELECT organization_id, request_day, project_id, provider, model, workflow, status, error_type, count(*)
      FROM ledger.usage_record
     WHERE organization_id = %(organization_id)s::uuid AND request_day = %(day)s AND start_time >= %(end)s
       AND status NOT BETWEEN 200 AND 299
     GROUP BY organization_id, request_day, project_id, provider, model, workflow, status, error_type
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 columns of ours
]


def leave_rest(connection: Connection, organization_id: str, day: date, end: datetime) -> None:
    """Takes what lies before the end out of an organization's day, whose hours before it are gone already.

    Fails to serialize when the day is written to meanwhile.
    """
    next_day = datetime.combine(day, time(), UTC) + DAY
    values = {"organization_id": organization_id, "day": day, "end": end, "next_day": next_day}
    for table in _TABLES:
        connection.execute(
            f"DELETE FROM ledger.{table} WHERE organization_id = %(organization_id)s::uuid AND day = %(day)s".encode(),  # noqa: S608 ours
            values,
        )
    if end < next_day:
        for statement in (_SUM_UP_REST, *_COUNT_REST):
            connection.execute(statement.encode(), values)
