"""Figures by the day are what the hours and the calls of that day add up to, whatever came and went."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from services.common.latency_buckets import bucket_of, counts_in
from services.ledger.storage.retention.expiry import HoursDue, delete_hours
from services.ledger.usage.rollups import FIGURES
from tests.conftest import Database
from tests.usage_builders import Recorder, a_record, a_recorder, a_request, add_organization, now_in_utc
from tollgate.ledger.v1.usage_pb2 import OUTCOME_PROVIDER_ERROR, OUTCOME_REFUSED

DAY_KEY = "organization_id, day, project_id, api_key_id, model, provider, funding, workflow"
SUMS = ", ".join(f"sum({name})" for name in FIGURES)
# Empty when days say what hours say.
DIFFERENCES = f"""
    WITH hours AS (
        SELECT organization_id, (hour AT TIME ZONE 'UTC')::date AS day, project_id, api_key_id, model, provider,
               funding, workflow, {SUMS} FROM ledger.usage_hour GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ), days AS (SELECT {DAY_KEY}, {", ".join(FIGURES)} FROM ledger.usage_day)
    (TABLE hours EXCEPT TABLE days) UNION ALL (TABLE days EXCEPT TABLE hours)
"""


def rows(database: Database, query: str, *values: object) -> list[Any]:
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query.encode(), values).fetchall()


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database) as running:
        yield running


async def test_days_add_up_to_what_hours_do(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    midnight = now_in_utc().replace(hour=0, minute=0, second=0, microsecond=0)
    moments = [midnight - timedelta(days=2) + timedelta(minutes=37 * number) for number in range(90)]
    calls = [a_record(organization_id, at=moment, workflow=f"w{n % 3}") for n, moment in enumerate(moments)]

    await recorder.record(a_request(*calls[:50]))
    await recorder.record(a_request(*calls[40:]))

    assert rows(database, DIFFERENCES) == []
    (counted,) = rows(
        database, "SELECT sum(request_count) FROM ledger.usage_day WHERE organization_id = %s", organization_id
    )
    assert counted == (90,)


async def test_durations_are_counted_once_for_each_call_that_was_tried(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    at = now_in_utc() - timedelta(minutes=1)
    quick = a_record(organization_id, at=at, latency_ms=100, time_to_first_token_ms=10)
    slow = a_record(organization_id, at=at, latency_ms=9_000, time_to_first_token_ms=None)
    refused = a_record(
        organization_id, at=at, latency_ms=1, outcome=OUTCOME_REFUSED, status=429, usage=None, attempts=[]
    )

    await recorder.record(a_request(quick, refused))
    await recorder.record(a_request(slow, quick))

    query = """
        SELECT numeric_send(latency_histogram), numeric_send(time_to_first_token_histogram) FROM ledger.latency_day
         WHERE organization_id = %s
    """
    ((latency, first_token),) = rows(database, query, organization_id)
    assert counts_in(latency) == {bucket_of(100): 1, bucket_of(9_000): 1}
    assert counts_in(first_token) == {bucket_of(10): 1}


async def test_the_view_tells_durations_as_arrays_too(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    at = now_in_utc() - timedelta(minutes=1)
    calls = [a_record(organization_id, at=at, latency_ms=n, time_to_first_token_ms=None) for n in (1, 1, 9_000)]

    await recorder.record(a_request(*calls))

    query = """
        SELECT latency_counts[0], latency_counts[%s], array_length(latency_counts, 1), time_to_first_token_counts
          FROM reporting.latency_day WHERE organization_id = %s
    """
    last = bucket_of(9_000)
    assert rows(database, query, last, organization_id) == [(2, 1, last + 1, [])]


async def test_failures_are_counted_by_how_they_failed(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    at = now_in_utc() - timedelta(minutes=1)
    failure = {"outcome": OUTCOME_PROVIDER_ERROR, "usage": None, "usage_source": 0}
    calls = [
        a_record(organization_id, at=at),
        a_record(organization_id, at=at, status=502, error_type="timeout", **failure),
        a_record(organization_id, at=at, status=502, error_type="timeout", **failure),
        a_record(organization_id, at=at, status=502, error_type="status", **failure),
    ]

    await recorder.record(a_request(*calls))

    query = "SELECT status, error_type, failure_count FROM ledger.failure_day WHERE organization_id = %s ORDER BY 2"
    assert rows(database, query, organization_id) == [(502, "status", 1), (502, "timeout", 2)]


async def test_what_expires_of_hours_expires_of_days(recorder: Recorder, database: Database) -> None:
    organization_id = add_organization(database)
    day = now_in_utc().date() - timedelta(days=5)
    morning = datetime(day.year, day.month, day.day, 8, 30, tzinfo=UTC)
    noon = morning.replace(hour=12)
    calls = [a_record(organization_id, at=morning, latency_ms=50), a_record(organization_id, at=noon, latency_ms=5_000)]
    await recorder.record(a_request(*calls))

    with psycopg.connect(database.ledger_url, autocommit=True) as connection:
        delete_hours(connection, HoursDue(organization_id, day, noon), now_in_utc())
        of_the_rest = rows(
            database,
            "SELECT numeric_send(latency_histogram) FROM ledger.latency_day WHERE organization_id = %s",
            organization_id,
        )
        assert rows(database, DIFFERENCES) == []
        delete_hours(connection, HoursDue(organization_id, day, noon + timedelta(hours=12)), now_in_utc())

    ((latency,),) = of_the_rest
    assert counts_in(latency) == {bucket_of(5_000): 1}
    for table in ("usage_day", "latency_day", "failure_day"):
        assert rows(database, f"SELECT FROM ledger.{table} WHERE organization_id = %s", organization_id) == []
