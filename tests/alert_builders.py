"""Alert rules for tests, put into the database as the ledger does, and what became of them."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from services.common.uuid7 import new_uuid7
from services.ledger.alerts.alert_rules import Alert, AlertRule, AlertStanding, AlertTerms
from services.ledger.alerts.alert_states import AlertComparison, AlertMetric, AlertState
from services.ledger.storage.alerts import alert_evaluation
from services.ledger.storage.alerts.alert_rows import alert_rule_to_row
from tests.conftest import Database
from tests.usage_builders import now_in_utc

ERROR_RATE = AlertTerms(
    metric=AlertMetric.ERROR_RATE,
    percentile=None,
    comparison=AlertComparison.ABOVE,
    threshold=Decimal(50),
    window_minutes=60,
    request_count_min=1,
)
P95 = replace(ERROR_RATE, metric=AlertMetric.LATENCY, percentile=95, threshold=Decimal(1_000))


def a_rule(organization_id: str, *, now: datetime | None = None, **fields: Any) -> AlertRule:
    """One that is due."""
    now = now or now_in_utc()
    state = fields.pop("state", AlertState.OK)
    values: dict[str, Any] = {
        "alert_rule_id": new_uuid7(),
        "organization_id": UUID(organization_id),
        "project_id": None,
        "display_name": "Errors",
        "terms": ERROR_RATE,
        "paused": False,
        "webhook_url": None,
        "create_time": now,
        "update_time": now,
        "standing": AlertStanding(
            state=state, state_time=now, value=None, evaluate_time=None, evaluation_error="", due_time=now
        ),
    }
    return AlertRule(**values | fields)


def add_rule(database: Database, rule: AlertRule, sealed_secret: bytes | None = None) -> AlertRule:
    row = alert_rule_to_row(rule) | {"sealed_webhook_secret": sealed_secret}
    statement = sql.SQL("INSERT INTO ledger.alert_rule ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Placeholder, row))
    )
    with psycopg.connect(database.ledger_url) as connection:
        connection.execute(statement, row)
    return rule


def set_due(database: Database, rule: AlertRule, due_time: datetime | None = None) -> None:
    """Makes a rule due at once, or then."""
    with psycopg.connect(database.ledger_url) as connection:
        values = (due_time or now_in_utc() - timedelta(milliseconds=1), rule.alert_rule_id)
        connection.execute("UPDATE ledger.alert_rule SET due_time = %s WHERE alert_rule_id = %s", values)


def rows_of(database: Database, table: str, rule: AlertRule) -> list[dict[str, Any]]:
    """All of a rule, the newest first."""
    order = "alert_rule_id" if table == "alert_rule" else "alert_id"
    statement = sql.SQL("SELECT * FROM {} WHERE alert_rule_id = %s ORDER BY {} DESC").format(
        sql.Identifier("ledger", table), sql.Identifier(order)
    )
    with psycopg.connect(database.ledger_url, row_factory=dict_row) as connection:
        return connection.execute(statement, (rule.alert_rule_id,)).fetchall()


def add_alert(database: Database, rule: AlertRule) -> Alert:
    """A change of its state that is to be delivered."""
    now = now_in_utc()
    alert = Alert(
        alert_id=new_uuid7(),
        alert_rule_id=rule.alert_rule_id,
        organization_id=rule.organization_id,
        project_id=rule.project_id,
        display_name=rule.display_name,
        terms=rule.terms,
        state=AlertState.FIRING,
        value=Decimal(75),
        request_count=4,
        window_start_time=now - timedelta(minutes=rule.terms.window_minutes),
        window_end_time=now,
        create_time=now,
    )
    with psycopg.connect(database.ledger_url) as connection:
        alert_evaluation.add_alert(connection, alert, is_delivered=True)
    return alert
