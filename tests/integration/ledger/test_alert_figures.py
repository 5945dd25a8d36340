"""What alert rules measure is exact: held against sums over the same calls in plain Python."""

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from services.ledger.alerts.alert_states import Durations, WindowFigures
from services.ledger.alerts.alert_windows import Span
from services.ledger.pricing import Outcome
from services.ledger.storage.alerts.alert_figures import Calls, durations_of, figures_of, find_sight, prepare_session
from tests.conftest import Database
from tests.usage_builders import (
    COST_PICO,
    Recorder,
    a_record,
    a_recorder,
    a_request,
    add_organization,
    now_in_utc,
    uuid7_at,
)
from tollgate.ledger.v1.usage_pb2 import Usage

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOW = now_in_utc()
WINDOWS_MINUTES = (5, 59, 60, 61, 300, 1_440, 1_441, 10_080, 43_200)


@dataclass(frozen=True, slots=True)
class Call:
    project_id: str
    start_time: datetime
    succeeded: bool
    outcome: Outcome
    tokens: int
    cost_pico: int
    latency_ms: int


def some_calls(seed: int, count: int) -> list[Call]:
    """Calls of thirty days, close together towards the present, some on the hour and at midnight."""
    chance = random.Random(seed)
    calls = []
    for _ in range(count):
        start = NOW - 30 * DAY * chance.random() ** 6 - timedelta(microseconds=1)
        if chance.random() < 0.1:
            start = start.replace(minute=0, second=0, microsecond=0, hour=chance.choice([0, start.hour]))
        kind = chance.random()
        outcome = Outcome.SUCCESS if kind < 0.7 else chance.choice([Outcome.PROVIDER_ERROR, Outcome.REFUSED])
        calls.append(
            Call(
                project_id=chance.choice(["web", "lab"]),
                start_time=start,
                succeeded=outcome is Outcome.SUCCESS,
                outcome=outcome,
                tokens=1_200 if outcome is Outcome.SUCCESS else 0,
                cost_pico=COST_PICO if outcome is Outcome.SUCCESS else 0,
                latency_ms=chance.randrange(10, 60_000),
            )
        )
    return calls


def record_of(organization_id: str, call: Call) -> Any:
    fields: dict[str, Any] = {
        "project_id": call.project_id,
        "latency_ms": call.latency_ms,
        "outcome": int(call.outcome),
    }
    if not call.succeeded:
        fields |= {"status": 503, "usage": None, "usage_source": 0, "error_type": "unavailable"}
    if call.outcome is Outcome.REFUSED:
        fields |= {"status": 429, "attempts": [], "provider": "", "error_type": "rate_limited"}
    return a_record(organization_id, at=call.start_time, **fields)


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database) as running:
        yield running


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with psycopg.connect(database.ledger_url, autocommit=True) as opened:
        prepare_session(opened)
        yield opened


@pytest.fixture(scope="module")
async def recorded(database: Database, recorder: Recorder) -> tuple[str, list[Call]]:
    organization_id, calls = add_organization(database), some_calls(1, 800)
    records = [record_of(organization_id, call) for call in calls]
    for first in range(0, len(records), 200):
        receipt = await recorder.record(a_request(*records[first : first + 200]))
        assert {result.status.name for result in receipt.results} == {"RECORDED"}, receipt
    # Another organization's calls are in nobody else's sums.
    other = add_organization(database)
    await recorder.record(a_request(*(a_record(other, at=NOW - minutes * HOUR / 7) for minutes in range(40))))
    return organization_id, calls


def within(calls: list[Call], window: Span, project_id: str | None) -> list[Call]:
    return [
        call for call in calls if window.start <= call.start_time < window.end and project_id in (None, call.project_id)
    ]


@pytest.mark.parametrize("minutes", WINDOWS_MINUTES)
@pytest.mark.parametrize("project_id", [None, "web"])
@pytest.mark.parametrize("retention_class", [90, None])
def test_sums_are_those_of_the_calls_that_began_in_the_window(
    connection: Connection,
    recorded: tuple[str, list[Call]],
    minutes: int,
    project_id: str | None,
    retention_class: int | None,
) -> None:
    organization_id, calls = recorded
    for end in (NOW, NOW - timedelta(minutes=17), NOW.replace(minute=0, second=0, microsecond=0)):
        window = Span(end - timedelta(minutes=minutes), end)
        expected = within(calls, window, project_id)

        found = figures_of(connection, Calls(UUID(organization_id), project_id), window, retention_class)

        assert found == WindowFigures(
            len(expected),
            sum(call.succeeded for call in expected),
            sum(call.tokens for call in expected),
            sum(call.cost_pico for call in expected),
        )


@pytest.mark.parametrize("percentile", [1, 50, 95, 99])
@pytest.mark.parametrize("minutes", [5, 60, 1_440])
def test_a_percentile_is_the_shortest_duration_that_so_many_stayed_within(
    connection: Connection, recorded: tuple[str, list[Call]], minutes: int, percentile: int
) -> None:
    organization_id, calls = recorded
    window = Span(NOW - timedelta(minutes=minutes), NOW)
    durations = sorted(call.latency_ms for call in within(calls, window, None) if call.outcome is not Outcome.REFUSED)

    found = durations_of(connection, Calls(UUID(organization_id), None), window, 90, percentile)

    rank = -(-len(durations) * percentile // 100)
    assert found == Durations(len(durations), durations[rank - 1] if durations else None)


def test_of_no_calls_there_is_no_duration_and_the_sums_are_zero(connection: Connection, database: Database) -> None:
    calls, window = Calls(UUID(add_organization(database)), None), Span(NOW - HOUR, NOW)

    assert durations_of(connection, calls, window, 90, 50) == Durations(0, None)
    assert figures_of(connection, calls, window, 90) == WindowFigures(0, 0, 0, 0)
    assert figures_of(connection, calls, Span(NOW, NOW), 90) == WindowFigures(0, 0, 0, 0)


async def test_a_call_without_a_price_is_counted_and_costs_nothing_yet(
    connection: Connection, database: Database, recorder: Recorder
) -> None:
    organization_id = add_organization(database)
    await recorder.record(a_request(a_record(organization_id, at=NOW - timedelta(seconds=9), model="unheard-of")))
    window = Span(NOW - timedelta(minutes=5), NOW)

    found = figures_of(connection, Calls(UUID(organization_id), None), window, 90)

    assert found == WindowFigures(1, 1, 1_200, 0)


async def test_what_an_id_says_of_the_time_does_not_count_only_when_the_call_began(
    connection: Connection, database: Database, recorder: Recorder
) -> None:
    organization_id, start = add_organization(database), NOW - timedelta(minutes=2)
    apart = a_record(organization_id, at=start, request_id=uuid7_at(NOW - 3 * DAY), usage=Usage(input_tokens=7))
    await recorder.record(a_request(apart))

    found = figures_of(connection, Calls(UUID(organization_id), None), Span(NOW - timedelta(minutes=5), NOW), 90)

    assert found.request_count == 1


def test_where_the_organization_s_calls_lie_is_told_with_how_far_back_it_sees(
    connection: Connection, database: Database
) -> None:
    sight = find_sight(connection, UUID(add_organization(database)), NOW)

    assert (sight.retention_class, sight.kept_since) == (90, NOW - 90 * DAY)


def test_only_the_days_of_the_window_are_looked_at(connection: Connection, recorded: tuple[str, list[Call]]) -> None:
    organization_id, _ = recorded
    window = Span(NOW - timedelta(minutes=5), NOW)
    locked = """
        SELECT relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
         WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r'
    """

    with connection.transaction():
        figures_of(connection, Calls(UUID(organization_id), None), window, 90)
        partitions = {name for (name,) in connection.execute(locked)}

    assert partitions == {f"usage_record_090_{moment:%Y%m%d}" for moment in window}
