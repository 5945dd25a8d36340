"""Alert rules and alerts in PostgreSQL, for those who keep and read them. Works inside its caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Select, and_, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.alerts.alert_rules import Alert, AlertDeliveryState, AlertRule
from services.ledger.alerts.alert_states import AlertState
from services.ledger.paging import PageRequest
from services.ledger.storage.alerts.alert_rows import (
    DELIVERY_PREFIX,
    alert_from_row,
    alert_rule_from_row,
    alert_rule_to_row,
)
from services.ledger.storage.alerts.alert_tables import alert, alert_delivery, alert_rule, organization

_RULE = [column for column in alert_rule.columns if column is not alert_rule.c.sealed_webhook_secret]
_DELIVERY = ("state", "attempt_count", "attempt_time", "next_attempt_time", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRuleFilter:
    """Which rules to list. None does not restrict."""

    organization_id: UUID | None
    project_id: str | None
    state: AlertState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFilter:
    """Which alerts to list. None does not restrict."""

    organization_id: UUID | None
    project_id: str | None
    alert_rule_id: UUID | None
    state: AlertState | None
    # Inclusive.
    from_time: datetime | None
    # Exclusive.
    to_time: datetime | None


class AlertStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def count_rules(self, organization_id: UUID) -> int:
        statement = select(func.count()).where(alert_rule.c.organization_id == organization_id)
        return int((await self._connection.execute(statement)).scalar_one())

    async def add_rule(self, rule: AlertRule, sealed_secret: bytes | None) -> None:
        row = alert_rule_to_row(rule) | {"sealed_webhook_secret": sealed_secret}
        await self._connection.execute(insert(alert_rule).values(row))

    async def find_rule(self, organization_id: UUID, alert_rule_id: UUID, *, lock: bool = False) -> AlertRule | None:
        """`lock` makes other changes of it, and its evaluation, wait until the transaction ends."""
        statement = select(*_RULE).where(_rule_is(organization_id, alert_rule_id))
        if lock:
            statement = statement.with_for_update()
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else alert_rule_from_row(row)

    async def list_rules(self, wanted: AlertRuleFilter, page: PageRequest[UUID]) -> list[AlertRule]:
        """Newest first."""
        columns = alert_rule.c
        statement = select(*_RULE).order_by(columns.alert_rule_id.desc()).limit(page.row_count)
        statement = _restricted(
            statement,
            (columns.organization_id, wanted.organization_id),
            (columns.project_id, wanted.project_id),
            (columns.state, wanted.state),
        )
        if page.after is not None:
            statement = statement.where(columns.alert_rule_id < page.after)
        return [alert_rule_from_row(row) for row in (await self._connection.execute(statement)).mappings()]

    async def change_rule(self, changed: AlertRule) -> None:
        """Must be locked."""
        row = alert_rule_to_row(changed)
        if changed.webhook_url is None:
            row["sealed_webhook_secret"] = None
        condition = _rule_is(changed.organization_id, changed.alert_rule_id)
        await self._connection.execute(update(alert_rule).where(condition).values(row))

    async def change_secret(self, rule: AlertRule, sealed_secret: bytes) -> None:
        """Must be locked. Together with a first webhook, before `change_rule`."""
        condition = _rule_is(rule.organization_id, rule.alert_rule_id)
        values = {"webhook_url": rule.webhook_url, "sealed_webhook_secret": sealed_secret}
        await self._connection.execute(update(alert_rule).where(condition).values(values))

    async def delete_rule(self, rule: AlertRule) -> None:
        """Must be locked. What waits to be delivered goes too; alerts stay."""
        await self.delete_waiting(rule)
        condition = _rule_is(rule.organization_id, rule.alert_rule_id)
        await self._connection.execute(delete(alert_rule).where(condition))

    async def delete_waiting(self, rule: AlertRule) -> None:
        """Delivers nothing of what has not been delivered yet."""
        columns = alert_delivery.c
        await self._connection.execute(
            delete(alert_delivery).where(
                columns.organization_id == rule.organization_id,
                columns.alert_rule_id == rule.alert_rule_id,
                columns.state == int(AlertDeliveryState.PENDING),
            )
        )

    async def list_alerts(self, wanted: AlertFilter, page: PageRequest[UUID], now: datetime) -> list[Alert]:
        """Newest first, each as long as its organization sees calls."""
        columns = alert.c
        statement = _alerts_seen(now).order_by(columns.alert_id.desc()).limit(page.row_count)
        statement = _restricted(
            statement,
            (columns.organization_id, wanted.organization_id),
            (columns.project_id, wanted.project_id),
            (columns.alert_rule_id, wanted.alert_rule_id),
            (columns.state, wanted.state),
        )
        if wanted.from_time is not None:
            statement = statement.where(columns.create_time >= wanted.from_time)
        if wanted.to_time is not None:
            statement = statement.where(columns.create_time < wanted.to_time)
        if page.after is not None:
            statement = statement.where(columns.alert_id < page.after)
        return [alert_from_row(row) for row in (await self._connection.execute(statement)).mappings()]


def _alerts_seen(now: datetime) -> Select[Any]:
    seen, delivery = organization.c, alert_delivery.c
    moment = literal(now, DateTime(timezone=True))
    kept_since = func.ledger.kept_since(moment, seen.retention_days, seen.retention_floor)
    same_alert = and_(delivery.organization_id == alert.c.organization_id, delivery.alert_id == alert.c.alert_id)
    return (
        select(*alert.columns, *(delivery[name].label(DELIVERY_PREFIX + name) for name in _DELIVERY))
        .join(organization, seen.organization_id == alert.c.organization_id)
        .outerjoin(alert_delivery, same_alert)
        .where(alert.c.create_time >= kept_since)
    )


def _restricted(statement: Select[Any], *pairs: tuple[Any, Any]) -> Select[Any]:
    for column, value in pairs:
        if value is not None:
            statement = statement.where(column == (int(value) if isinstance(value, AlertState) else value))
    return statement


def _rule_is(organization_id: UUID, alert_rule_id: UUID) -> Any:
    return and_(alert_rule.c.organization_id == organization_id, alert_rule.c.alert_rule_id == alert_rule_id)
