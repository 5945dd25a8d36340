"""Which alert rules are due, and what an evaluation leaves behind. Works inside its caller's transaction."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from services.ledger.alerts.alert_rules import Alert, AlertDeliveryState, AlertRule
from services.ledger.storage.alerts.alert_rows import alert_rule_from_row, alert_to_row
from services.ledger.storage.alerts.alert_tables import alert, alert_rule


class Spot(NamedTuple):
    """A rule by its key."""

    organization_id: UUID
    alert_rule_id: UUID


_RULE = ", ".join(name for name in alert_rule.columns.keys() if name != "sealed_webhook_secret")  # noqa: SIM118
_ALERT = tuple(alert.columns.keys())
_IS_SPOT = "organization_id = %(organization_id)s AND alert_rule_id = %(alert_rule_id)s"
_DUE = """
    SELECT organization_id, alert_rule_id
      FROM ledger.alert_rule
     WHERE NOT paused AND due_time <= %s AND organization_id <> ALL(%s) ORDER BY due_time LIMIT %s
"""
_FIRST_DUE = "SELECT min(due_time) FROM ledger.alert_rule WHERE NOT paused"
_CLAIM = f"""
    SELECT {_RULE} FROM ledger.alert_rule
     WHERE {_IS_SPOT} AND NOT paused AND due_time <= %(now)s
       FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 columns of ours
_SAVE = f"""
    UPDATE ledger.alert_rule
       SET state = %(state)s, state_time = %(state_time)s, value = %(value)s, evaluate_time = %(evaluate_time)s,
           evaluation_error = %(evaluation_error)s, due_time = %(due_time)s
     WHERE {_IS_SPOT}
"""  # noqa: S608 columns of ours
_POSTPONE = f"""
    UPDATE ledger.alert_rule SET due_time = %(due_time)s, evaluation_error = %(error)s WHERE {_IS_SPOT}
"""  # noqa: S608 columns of ours
_ADD_ALERT = f"""
    INSERT INTO ledger.alert ({", ".join(_ALERT)}) VALUES ({", ".join(f"%({name})s" for name in _ALERT)})
"""  # noqa: S608 columns of ours
_ADD_DELIVERY = """
    INSERT INTO ledger.alert_delivery
           (organization_id, alert_id, alert_rule_id, state, attempt_count, next_attempt_time, error)
    VALUES (%s, %s, %s, %s, 0, %s, '')
"""
_EXPIRED = """
    SELECT organization_id, kept_since
      FROM (
           SELECT organization_id, ledger.kept_since(%s, retention_days, retention_floor) AS kept_since
             FROM reporting.organization
           ) AS sight
     WHERE EXISTS (
           SELECT FROM ledger.alert
            WHERE alert.organization_id = sight.organization_id AND alert.create_time < sight.kept_since
           )
"""
_EXPIRE = "DELETE FROM ledger.alert WHERE organization_id = %s AND create_time < %s"


def find_due(connection: Connection, now: datetime, without: Collection[UUID], limit: int) -> list[Spot]:
    """Rules that are due, but for those of some organizations; those that wait longest first."""
    return [Spot(*row) for row in connection.execute(_DUE, (now, list(without), limit))]


def first_due(connection: Connection) -> datetime | None:
    """When the rule that waits longest was due, or will be; None when there is none."""
    row = connection.execute(_FIRST_DUE).fetchone()
    return None if row is None else row[0]


def claim(connection: Connection, spot: Spot, now: datetime) -> AlertRule | None:
    """The rule, locked; None when another ledger has it or had it, or it is not due any more."""
    cursor = connection.cursor(row_factory=dict_row)
    row = cursor.execute(_CLAIM.encode(), {**spot._asdict(), "now": now}).fetchone()
    return None if row is None else alert_rule_from_row(row)


def save(connection: Connection, rule: AlertRule) -> None:
    """How the rule stands. It must be locked."""
    standing = rule.standing
    values = {
        "organization_id": rule.organization_id,
        "alert_rule_id": rule.alert_rule_id,
        "state": int(standing.state),
        "state_time": standing.state_time,
        "value": standing.value,
        "evaluate_time": standing.evaluate_time,
        "evaluation_error": standing.evaluation_error,
        "due_time": standing.due_time,
    }
    connection.execute(_SAVE.encode(), values)


def postpone(connection: Connection, spot: Spot, due_time: datetime, error: str) -> None:
    """Leaves a rule that cannot be evaluated as it is until then."""
    connection.execute(_POSTPONE.encode(), {**spot._asdict(), "due_time": due_time, "error": error})


def add_alert(connection: Connection, alert: Alert, *, is_delivered: bool) -> None:
    connection.execute(_ADD_ALERT.encode(), alert_to_row(alert))
    if is_delivered:
        state = int(AlertDeliveryState.PENDING)
        values = (alert.organization_id, alert.alert_id, alert.alert_rule_id, state, alert.create_time)
        connection.execute(_ADD_DELIVERY, values)


def expire(connection: Connection, now: datetime) -> int:
    """Deletes the alerts that nobody sees any more; returns how many."""
    expired = connection.execute(_EXPIRED, (now,)).fetchall()
    return sum(connection.execute(_EXPIRE, values).rowcount for values in expired)
