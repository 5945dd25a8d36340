"""Holds alert rules against the figures. Every ledger does; a rule that one of them holds, the others pass by."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from psycopg import Connection, errors

from services.common.errors import UnavailableError
from services.ledger.alerts.alert_rules import Alert, AlertRule, AlertStanding
from services.ledger.alerts.alert_states import (
    AlertMetric,
    AlertState,
    Measurement,
    latency_measurement,
    measurement,
    next_state,
    rounded,
)
from services.ledger.alerts.alert_windows import Span, next_due
from services.ledger.metrics import ALERT_EVALUATIONS, ALERT_LAG_SECONDS, ALERTS
from services.ledger.storage.alerts import alert_evaluation, alert_figures
from services.ledger.storage.alerts.alert_evaluation import Spot
from services.ledger.storage.writer import DatabaseWriter

LOOK_SECONDS = 1.0
RULES_AT_ONCE = 200
# A rule that needs longer shows it, and does not hold up the others.
STATEMENT_TIMEOUT = "5s"
# An organization whose rules have taken so long goes on when no other's are due.
ORGANIZATION_SECONDS = 5.0
EXPIRE_INTERVAL = timedelta(hours=1)
TOO_SLOW = "adding up the window takes too much; choose a shorter one"
BROKEN = "the rule could not be evaluated; our log says why"

# Of one question; to the writer these look like a database that is away.
_TOO_MUCH = (errors.QueryCanceled, errors.OutOfMemory, errors.DiskFull, errors.ConfigurationLimitExceeded)

log = logging.getLogger("tollgate.ledger.alerts")


class Evaluation(NamedTuple):
    """What became of one."""

    failed: bool
    # None when it stays as it was.
    new_state: AlertState | None


class AlertEvaluator:
    """Evaluates rules as they come due. Lives as long as the service."""

    def __init__(
        self,
        writer: DatabaseWriter,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        interval: timedelta,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._new_id = new_id
        self._interval = interval
        # What the rules of each organization have taken since no other's were due.
        self._seconds: defaultdict[UUID, float] = defaultdict(float)

    async def follow(self) -> None:
        """Looks every second for rules that are due, and every hour for alerts that have expired, for ever."""
        expire_time = self._clock()
        while True:
            try:
                if self._clock() >= expire_time:
                    expire_time = self._clock() + EXPIRE_INTERVAL
                    await self._writer.run(lambda connection: alert_evaluation.expire(connection, self._clock()))
                if await self.make_pass():
                    continue
            except UnavailableError as error:
                log.warning("alerts wait for the database: %s", error.message)
            except Exception:
                # Recording must go on, whatever is wrong here; the lag shows in the metrics.
                log.exception("alerts failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def make_pass(self) -> bool:
        """Evaluates what is due, up to the bounds of a pass; returns whether more may be due now."""
        now, waiting = self._clock(), self._over_budget()
        due = await self._writer.run(
            lambda connection: alert_evaluation.find_due(connection, now, waiting, RULES_AT_ONCE)
        )
        evaluated = 0
        for spot in due:
            if self._seconds[spot.organization_id] < ORGANIZATION_SECONDS:
                start = time.monotonic()
                evaluated += await self._evaluate(spot)
                self._seconds[spot.organization_id] += time.monotonic() - start
        first_due = await self._writer.run(alert_evaluation.first_due)
        ALERT_LAG_SECONDS.set(0 if first_due is None else max(0, (self._clock() - first_due).total_seconds()))
        if not evaluated:
            # Nothing is due, or other ledgers are at it.
            self._seconds.clear()
        return bool(waiting or self._over_budget()) or evaluated == RULES_AT_ONCE

    def _over_budget(self) -> list[UUID]:
        return [one for one, seconds in self._seconds.items() if seconds >= ORGANIZATION_SECONDS]

    async def _evaluate(self, spot: Spot) -> bool:
        """One rule; false when another ledger has it. Whatever is wrong with it stays with it."""
        try:
            evaluation = await self._writer.run(
                lambda connection: evaluate(connection, spot, self._clock(), self._new_id, self._interval)
            )
        except UnavailableError:
            raise
        except Exception:
            log.exception("an alert rule could not be evaluated", extra={"alert_rule_id": str(spot.alert_rule_id)})
            due_time = self._clock() + self._interval
            await self._writer.run(lambda connection: alert_evaluation.postpone(connection, spot, due_time, BROKEN))
            ALERT_EVALUATIONS.labels("broken").inc()
            return True
        if evaluation is None:
            return False
        ALERT_EVALUATIONS.labels("failed" if evaluation.failed else "done").inc()
        if evaluation.new_state is not None:
            ALERTS.labels(evaluation.new_state.name.lower()).inc()
        return True


def evaluate(
    connection: Connection, spot: Spot, now: datetime, new_id: Callable[[], UUID], interval: timedelta
) -> Evaluation | None:
    """One evaluation, in one transaction; None when the rule is not due any more, or another ledger has it."""
    with connection.transaction():
        rule = alert_evaluation.claim(connection, spot, now)
        if rule is None:
            return None
        due_time = next_due(rule.standing.due_time, now, interval)
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
                window, measured = _measure(connection, rule, now)
        except _TOO_MUCH:
            alert_evaluation.postpone(connection, spot, due_time, TOO_SLOW)
            return Evaluation(failed=True, new_state=None)
        standing = _standing(rule, measured, now, due_time)
        alert_evaluation.save(connection, replace(rule, standing=standing))
        if standing.state is rule.standing.state:
            return Evaluation(failed=False, new_state=None)
        alert = _alert(rule, standing, measured, window, new_id())
        alert_evaluation.add_alert(connection, alert, is_delivered=rule.webhook_url is not None)
        return Evaluation(failed=False, new_state=standing.state)


def _measure(connection: Connection, rule: AlertRule, now: datetime) -> tuple[Span, Measurement]:
    """What was measured, and in which window: retention may cut it short."""
    sight = alert_figures.find_sight(connection, rule.organization_id, now)
    start = max(now - timedelta(minutes=rule.terms.window_minutes), sight.kept_since)
    window, calls = Span(start, now), alert_figures.Calls(rule.organization_id, rule.project_id)
    metric, percentile = rule.terms.metric, rule.terms.percentile
    if metric is AlertMetric.LATENCY and percentile is not None:
        durations = alert_figures.durations_of(connection, calls, window, sight.retention_class, percentile)
        return window, latency_measurement(durations)
    return window, measurement(metric, alert_figures.figures_of(connection, calls, window, sight.retention_class))


def _standing(rule: AlertRule, measured: Measurement, now: datetime, due_time: datetime) -> AlertStanding:
    before = rule.standing
    state = next_state(before.state, rule.terms.condition.is_met(measured))
    return AlertStanding(
        state=state,
        state_time=before.state_time if state is before.state else now,
        value=None if measured.value is None else rounded(measured.value),
        evaluate_time=now,
        evaluation_error="",
        due_time=due_time,
    )


def _alert(rule: AlertRule, standing: AlertStanding, measured: Measurement, window: Span, alert_id: UUID) -> Alert:
    if standing.value is None:
        raise AssertionError("nothing changes where nothing was measured")
    return Alert(
        alert_id=alert_id,
        alert_rule_id=rule.alert_rule_id,
        organization_id=rule.organization_id,
        project_id=rule.project_id,
        display_name=rule.display_name,
        terms=rule.terms,
        state=standing.state,
        value=standing.value,
        request_count=measured.request_count,
        window_start_time=window.start,
        window_end_time=window.end,
        create_time=standing.state_time,
    )
