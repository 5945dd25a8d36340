"""Alert rules are evaluated once each time they are due, whatever else goes on, and every change of state is kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from services.common.uuid7 import new_uuid7
from services.ledger.alerts import alert_evaluating
from services.ledger.alerts.alert_evaluating import BROKEN, TOO_SLOW, AlertEvaluator
from services.ledger.alerts.alert_rules import AlertRule
from services.ledger.alerts.alert_states import AlertMetric, AlertState
from services.ledger.storage.alerts import alert_evaluation, alert_figures
from services.ledger.storage.alerts.alert_figures import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from tests.alert_builders import ERROR_RATE, P95, a_rule, add_rule, rows_of, set_due
from tests.conftest import Database
from tests.usage_builders import Recorder, a_record, a_recorder, a_request, add_organization, now_in_utc

MINUTE = timedelta(minutes=1)
OK, FIRING, RESOLVED = AlertState.OK, AlertState.FIRING, AlertState.RESOLVED


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database) as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


@contextmanager
def an_evaluator(database: Database) -> Iterator[AlertEvaluator]:
    writer = DatabaseWriter(database.ledger_url, prepare_session)
    yield AlertEvaluator(writer, clock=now_in_utc, new_id=new_uuid7, interval=MINUTE)
    writer.close()


async def calls(
    recorder: Recorder, organization_id: str, count: int, *, failed: bool = False, at: datetime | None = None
) -> None:
    if not count:
        return
    fields: dict[str, Any] = {"outcome": 2, "status": 503, "error_type": "unavailable"} if failed else {}
    await recorder.record(a_request(*(a_record(organization_id, at=at, **fields) for _ in range(count))))


async def evaluate(database: Database, *rules: AlertRule) -> None:
    """As if their minutes were over."""
    for rule in rules:
        set_due(database, rule)
    with an_evaluator(database) as evaluator:
        await evaluator.make_pass()


def states(database: Database, rule: AlertRule) -> list[AlertState]:
    """Of its alerts, the newest first."""
    return [AlertState(row["state"]) for row in rows_of(database, "alert", rule)]


def standing(database: Database, rule: AlertRule) -> dict[str, Any]:
    (row,) = rows_of(database, "alert_rule", rule)
    return row


async def test_a_rule_fires_once_resolves_once_and_fires_again(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rule = add_rule(database, a_rule(organization_id))
    seen = []
    for succeeded, failed in ((1, 0), (0, 3), (0, 1), (6, 0), (1, 0), (0, 9)):
        await calls(recorder, organization_id, succeeded)
        await calls(recorder, organization_id, failed, failed=True)
        await evaluate(database, rule)
        seen.append(states(database, rule))

    assert seen == [[], [FIRING], [FIRING], [RESOLVED, FIRING], [RESOLVED, FIRING], [FIRING, RESOLVED, FIRING]]


async def test_an_alert_keeps_what_was_measured_and_the_rule_as_it_was(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rule = add_rule(database, a_rule(organization_id))
    await calls(recorder, organization_id, 1)
    await calls(recorder, organization_id, 2, failed=True)

    await evaluate(database, rule)
    (alert,), now = rows_of(database, "alert", rule), standing(database, rule)

    assert (alert["value"], alert["request_count"]) == (Decimal("66.666666666667"), 3)
    assert (alert["threshold"], alert["window_minutes"], alert["display_name"]) == (50, 60, "Errors")
    assert alert["window_end_time"] - alert["window_start_time"] == 60 * MINUTE
    assert alert["create_time"] == now["state_time"] == now["evaluate_time"]
    assert (now["state"], now["value"]) == (FIRING, alert["value"])


async def test_with_too_few_calls_the_state_stays_as_it_is(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    few = replace(ERROR_RATE, request_count_min=5)
    calm = add_rule(database, a_rule(organization_id, terms=few))
    firing = add_rule(database, a_rule(organization_id, terms=replace(few, threshold=Decimal(100)), state=FIRING))
    await calls(recorder, organization_id, 4, failed=True)

    await evaluate(database, calm, firing)

    assert states(database, calm) == states(database, firing) == []
    assert standing(database, calm)["state"] == OK
    assert standing(database, firing)["state"] == FIRING
    assert standing(database, calm)["value"] == 100


@pytest.mark.parametrize(
    "case",
    [
        # Three calls of 1,200 tokens and 0.00375 USD.
        (AlertMetric.COST, "0.011249999999", True),
        (AlertMetric.COST, "0.01125", False),
        (AlertMetric.TOKEN_COUNT, "3599", True),
        (AlertMetric.TOKEN_COUNT, "3600", False),
        (AlertMetric.REQUEST_COUNT, "2", True),
        (AlertMetric.REQUEST_COUNT, "3", False),
        (AlertMetric.ERROR_RATE, "0", False),
    ],
)
async def test_each_metric_is_held_against_its_threshold_exactly(
    database: Database, recorder: Recorder, organization_id: str, case: tuple[AlertMetric, str, bool]
) -> None:
    metric, threshold, fires = case
    terms = replace(ERROR_RATE, metric=metric, threshold=Decimal(threshold))
    rule = add_rule(database, a_rule(organization_id, terms=terms))
    await calls(recorder, organization_id, 3)

    await evaluate(database, rule)

    assert states(database, rule) == ([FIRING] if fires else [])


async def test_a_percentile_of_the_latency_fires(database: Database, recorder: Recorder, organization_id: str) -> None:
    rule = add_rule(database, a_rule(organization_id, terms=P95))
    slow = [a_record(organization_id, latency_ms=5_000) for _ in range(2)]
    quick = [a_record(organization_id, latency_ms=100, time_to_first_token_ms=50) for _ in range(18)]
    await recorder.record(a_request(*slow, *quick))

    await evaluate(database, rule)

    assert [row["value"] for row in rows_of(database, "alert", rule)] == [5_000]


async def test_a_rule_of_a_project_looks_at_its_calls_only(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    with psycopg.connect(database.ledger_url) as connection:
        for project_id in ("web", "lab"):
            connection.execute("INSERT INTO ledger.project VALUES (%s, %s, 1, now())", (organization_id, project_id))
    web, lab = (add_rule(database, a_rule(organization_id, project_id=project_id)) for project_id in ("web", "lab"))
    await calls(recorder, organization_id, 3, failed=True)

    await evaluate(database, web, lab)

    assert (states(database, web), states(database, lab)) == ([FIRING], [])


async def test_calls_before_the_window_do_not_count(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rule = add_rule(database, a_rule(organization_id))
    await calls(recorder, organization_id, 3, failed=True, at=now_in_utc() - 61 * MINUTE)

    await evaluate(database, rule)

    assert (states(database, rule), standing(database, rule)["value"]) == ([], None)


async def test_a_window_reaches_back_no_further_than_retention(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    with psycopg.connect(database.ledger_url) as connection:
        connection.execute(
            "UPDATE ledger.organization SET plan = 1, retention_days = 3 WHERE organization_id = %s", (organization_id,)
        )
    terms = replace(ERROR_RATE, metric=AlertMetric.REQUEST_COUNT, window_minutes=43_200, threshold=Decimal(0))
    rule = add_rule(database, a_rule(organization_id, terms=terms))
    await calls(recorder, organization_id, 3, at=now_in_utc() - timedelta(days=3, minutes=1))
    await calls(recorder, organization_id, 2, at=now_in_utc() - timedelta(days=2, hours=23, minutes=59))

    await evaluate(database, rule)
    (alert,) = rows_of(database, "alert", rule)

    assert alert["request_count"] == 2
    assert alert["window_end_time"] - alert["window_start_time"] == timedelta(days=3)


async def test_ledgers_side_by_side_evaluate_a_rule_once(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rules = [add_rule(database, a_rule(organization_id)) for _ in range(20)]
    await calls(recorder, organization_id, 3, failed=True)
    with an_evaluator(database) as one, an_evaluator(database) as two, an_evaluator(database) as three:
        await asyncio.gather(*(evaluator.make_pass() for evaluator in (one, two, three)))

    assert [states(database, rule) for rule in rules] == [[FIRING]] * 20


async def test_a_rule_that_cannot_be_evaluated_stops_no_other_and_says_so(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    broken, sound = add_rule(database, a_rule(organization_id)), add_rule(database, a_rule(organization_id))
    with psycopg.connect(database.admin_url) as connection:
        connection.execute(
            "UPDATE ledger.alert_rule SET window_minutes = 1 WHERE alert_rule_id = %s", (broken.alert_rule_id,)
        )
    await calls(recorder, organization_id, 3, failed=True)

    await evaluate(database, broken, sound)
    now = standing(database, broken)

    assert states(database, sound) == [FIRING]
    assert (now["state"], now["evaluation_error"]) == (OK, BROKEN)
    assert now["due_time"] > now_in_utc()


async def test_a_rule_that_takes_too_long_stops_no_other_and_says_so(
    database: Database, recorder: Recorder, organization_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = add_rule(database, a_rule(organization_id, terms=P95))
    sound = add_rule(database, a_rule(organization_id))
    await calls(recorder, organization_id, 3, failed=True)

    def sleep(connection: psycopg.Connection, *_: Any) -> Any:
        return connection.execute("SELECT pg_sleep(60)").fetchone()

    monkeypatch.setattr(alert_evaluating, "STATEMENT_TIMEOUT", "200ms")
    monkeypatch.setattr(alert_figures, "durations_of", sleep)
    await evaluate(database, slow, sound)
    now = standing(database, slow)

    assert (now["state"], now["evaluation_error"]) == (OK, TOO_SLOW)
    assert now["due_time"] > now_in_utc()
    assert states(database, sound) == [FIRING]


async def test_an_organization_whose_rules_take_long_lets_the_others_go_first(
    database: Database, recorder: Recorder, organization_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [add_rule(database, a_rule(organization_id, terms=P95)) for _ in range(3)]
    other = add_organization(database)
    quick = add_rule(database, a_rule(other))
    await calls(recorder, other, 1, failed=True)
    for rule in slow:
        set_due(database, rule, now_in_utc() - MINUTE)

    def sleep(connection: psycopg.Connection, *_: Any) -> Any:
        return connection.execute("SELECT pg_sleep(60)").fetchone()

    monkeypatch.setattr(alert_evaluating, "STATEMENT_TIMEOUT", "50ms")
    monkeypatch.setattr(alert_evaluating, "ORGANIZATION_SECONDS", 0.05)
    monkeypatch.setattr(alert_figures, "durations_of", sleep)
    evaluated = []
    with an_evaluator(database) as evaluator:
        while await evaluator.make_pass():
            errors = [standing(database, rule)["evaluation_error"] for rule in slow]
            evaluated.append((errors.count(TOO_SLOW), states(database, quick)))

    assert evaluated[0] == (1, [FIRING])
    assert evaluated[-1] == (3, [FIRING])


async def test_a_paused_rule_is_not_evaluated(database: Database, recorder: Recorder, organization_id: str) -> None:
    rule = add_rule(database, a_rule(organization_id, paused=True))
    await calls(recorder, organization_id, 3, failed=True)

    await evaluate(database, rule)

    assert (states(database, rule), standing(database, rule)["evaluate_time"]) == ([], None)


async def test_after_an_outage_a_rule_is_evaluated_once_and_then_at_its_own_second_again(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rule = add_rule(database, a_rule(organization_id))
    due_time = now_in_utc() - 100 * MINUTE - timedelta(seconds=30)
    set_due(database, rule, due_time)
    with an_evaluator(database) as evaluator:
        await evaluator.make_pass()
        first = standing(database, rule)
        await evaluator.make_pass()
        second = standing(database, rule)

    assert second == first
    assert timedelta(0) < first["due_time"] - first["evaluate_time"] <= MINUTE
    assert (first["due_time"] - due_time) % MINUTE == timedelta(0)


async def test_an_alert_is_never_changed(database: Database, recorder: Recorder, organization_id: str) -> None:
    rule = add_rule(database, a_rule(organization_id))
    await calls(recorder, organization_id, 1, failed=True)
    await evaluate(database, rule)

    with psycopg.connect(database.ledger_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE ledger.alert SET value = 0 WHERE alert_rule_id = %s", (rule.alert_rule_id,))


async def test_alerts_leave_the_disk_when_nobody_sees_them_any_more(
    database: Database, recorder: Recorder, organization_id: str
) -> None:
    rule = add_rule(database, a_rule(organization_id))
    await calls(recorder, organization_id, 1, failed=True)
    await evaluate(database, rule)
    (alert,) = rows_of(database, "alert", rule)
    end = alert["create_time"] + timedelta(days=90)

    def expire(now: datetime) -> list[AlertState]:
        with psycopg.connect(database.ledger_url, autocommit=True) as connection:
            alert_evaluation.expire(connection, now)
        return states(database, rule)

    assert expire(end) == [FIRING]
    assert expire(end + timedelta(microseconds=1)) == []
