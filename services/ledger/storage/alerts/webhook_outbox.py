"""Alerts on their way to webhooks, in PostgreSQL. Each call is one transaction of its own."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from services.ledger.alerts.alert_rules import Alert, AlertDeliveryState
from services.ledger.storage.alerts.alert_rows import alert_from_row

_CANDIDATES = 50
_PENDING = int(AlertDeliveryState.PENDING)
_IS_ALERT = "organization_id = %(organization_id)s AND alert_id = %(alert_id)s"
_DUE = f"""
    SELECT organization_id, alert_id
      FROM ledger.alert_delivery
     WHERE state = {_PENDING} AND next_attempt_time <= %(now)s AND organization_id <> ALL(%(busy)s)
     ORDER BY next_attempt_time LIMIT {_CANDIDATES}
"""  # noqa: S608 constants of ours
# Of two who try, the second finds it changed.
_CLAIM = f"""
    UPDATE ledger.alert_delivery
       SET attempt_count = attempt_count + 1, attempt_time = %(now)s, next_attempt_time = %(lost_time)s
     WHERE {_IS_ALERT} AND state = {_PENDING} AND next_attempt_time <= %(now)s
    RETURNING attempt_count
"""  # noqa: S608 constants of ours
_READ = """
    SELECT alert.*, NULL AS delivery_state, alert_rule.webhook_url, alert_rule.sealed_webhook_secret
      FROM ledger.alert
      LEFT JOIN ledger.alert_rule USING (organization_id, alert_rule_id)
     WHERE alert.organization_id = %(organization_id)s AND alert.alert_id = %(alert_id)s
"""
_FINISH = f"""
    UPDATE ledger.alert_delivery
       SET state = %(state)s, next_attempt_time = %(next_attempt_time)s, error = %(error)s
     WHERE {_IS_ALERT} AND state = {_PENDING} AND (%(delivered)s OR attempt_count = %(attempt_count)s)
"""  # noqa: S608 constants of ours
_WAITING = f"""
    SELECT count(*), min(next_attempt_time) FROM ledger.alert_delivery WHERE state = {_PENDING}
"""  # noqa: S608 constants of ours


class Claimed(NamedTuple):
    """An alert that is to be delivered now, and nobody else does."""

    alert: Alert
    # This try included.
    attempt_count: int
    # None when the rule has none any more.
    webhook_url: str | None
    sealed_secret: bytes | None


class Waiting(NamedTuple):
    """What is to be delivered."""

    alert_count: int
    # None when nothing is.
    next_attempt_time: datetime | None


def claim_next(connection: Connection, now: datetime, lost_time: datetime, busy: Collection[UUID]) -> Claimed | None:
    """What waits longest of organizations that are not busy; None when nothing does.

    Unless it is finished by `lost_time`, whoever claimed it is taken for dead, and it is tried again.
    """
    due = connection.execute(_DUE.encode(), {"now": now, "busy": list(busy)}).fetchall()
    for organization_id, alert_id in due:
        values = {"organization_id": organization_id, "alert_id": alert_id, "now": now, "lost_time": lost_time}
        with connection.transaction():
            claimed = connection.execute(_CLAIM.encode(), values).fetchone()
            row = connection.cursor(row_factory=dict_row).execute(_READ, values).fetchone()
        if claimed is not None and row is not None:
            return Claimed(alert_from_row(row), claimed[0], row["webhook_url"], row["sealed_webhook_secret"])
    return None


def delivered(connection: Connection, claimed: Claimed) -> None:
    """It got there, whoever has taken it over meanwhile."""
    _finish(connection, claimed, AlertDeliveryState.DELIVERED, None, "")


def failed(connection: Connection, claimed: Claimed, error: str, next_attempt_time: datetime | None) -> None:
    """It is tried again then, or never."""
    state = AlertDeliveryState.GIVEN_UP if next_attempt_time is None else AlertDeliveryState.PENDING
    _finish(connection, claimed, state, next_attempt_time, error)


def waiting(connection: Connection) -> Waiting:
    row = connection.execute(_WAITING.encode()).fetchone()
    return Waiting(0, None) if row is None else Waiting(*row)


def _finish(
    connection: Connection,
    claimed: Claimed,
    state: AlertDeliveryState,
    next_attempt_time: datetime | None,
    error: str,
) -> None:
    values = {
        "organization_id": claimed.alert.organization_id,
        "alert_id": claimed.alert.alert_id,
        "attempt_count": claimed.attempt_count,
        "delivered": state is AlertDeliveryState.DELIVERED,
        "state": int(state),
        "next_attempt_time": next_attempt_time,
        "error": error,
    }
    connection.execute(_FINISH.encode(), values)
