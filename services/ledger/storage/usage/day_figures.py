"""Figures by the day in PostgreSQL: what hours add up to, how long calls took, how they failed.

Questions over whole days are answered from these. Works inside its caller's transaction.
"""

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
        latency_histogram NUMERIC, time_to_first_token_histogram NUMERIC
    ) ON COMMIT DELETE ROWS
"""
_STAGE = "COPY pg_temp.latency_day_staging FROM STDIN (FORMAT BINARY)"
_ADD_DURATIONS = f"""
    INSERT INTO ledger.latency_day ({_CALLS_KEY}, latency_histogram, time_to_first_token_histogram)
    SELECT {_CALLS_KEY}, latency_histogram, time_to_first_token_histogram
      FROM pg_temp.latency_day_staging ORDER BY {_CALLS_KEY}
    ON CONFLICT ({_CALLS_KEY}) DO UPDATE
       SET latency_histogram = latency_day.latency_histogram + excluded.latency_histogram,
           time_to_first_token_histogram =
               latency_day.time_to_first_token_histogram + excluded.time_to_first_token_histogram
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
_EPOCH_DAY = date(1970, 1, 1)


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    connection.execute(_CREATE_STAGING)


def pack_durations(days: Mapping[CallsKey, Durations]) -> bytes:
    """The durations as `add_durations` takes them; empty where there are none."""
    if not days:
        return b""
    rows = [copy_binary.BEGIN]
    for key, durations in days.items():
        rows += (
            _ROW_HEAD,
            _PLACE_FIELDS(copy_binary.uuid_bytes(key.organization_id), copy_binary.date_value(key.day)),
            *map(copy_binary.text_field, key[2:]),
            copy_binary.histogram_field(durations.latency),
            copy_binary.histogram_field(durations.time_to_first_token),
        )
    rows.append(copy_binary.END)
    return b"".join(rows)


def add_durations(connection: Connection, packed: bytes) -> None:
    """Adds to the histograms that are there."""
    if packed:
        with connection.cursor().copy(_STAGE) as copy:
            copy.write(packed)
        connection.execute(_ADD_DURATIONS)


def add_failures(connection: Connection, failures: Mapping[FailureKey, int]) -> None:
    """Adds to the counts that are there."""
    if failures:
        rows = ((key[0], _EPOCH_DAY + key.day * DAY, *key[2:], count) for key, count in failures.items())
        connection.execute(_ADD_FAILURES, [list(column) for column in zip(*rows, strict=True)])


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
    INSERT INTO ledger.latency_day ({_CALLS_KEY}, latency_histogram, time_to_first_token_histogram)
    SELECT organization_id, request_day, project_id, provider, model, workflow,
           sum(ledger.histogram_of(ledger.latency_bucket(latency_ms))),
           COALESCE(sum(ledger.histogram_of(ledger.latency_bucket(time_to_first_token_ms))), 0)
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
