"""The audit log in PostgreSQL. Works inside the transaction of the change that it tells of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, Table, Uuid, insert, null, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.authentication import Scope
from services.common.uuid7 import first_uuid7
from services.ledger.accounts.audit import AuditEntry
from services.ledger.paging import PageRequest
from services.ledger.storage.accounts.account_tables import audit_log, operator_audit_log


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which changes to list. None does not restrict."""

    # None also shows what belongs to no organization.
    organization_id: UUID | None
    api_key_id: UUID | None
    action: str | None
    subject: str | None
    # Inclusive.
    from_time: datetime | None
    # Exclusive.
    to_time: datetime | None


class AuditStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entry: AuditEntry) -> None:
        """Writes to the organization's log, or to the operators' where the change belongs to no organization."""
        row = {
            "audit_id": entry.audit_id,
            "create_time": entry.create_time,
            "actor_scope": int(entry.actor_scope),
            "actor_api_key_id": entry.actor_api_key_id,
            "action": entry.action,
            "subject": entry.subject,
            "details": dict(entry.after),
            "before": dict(entry.before) or None,
        }
        if entry.organization_id is None:
            await self._connection.execute(insert(operator_audit_log).values(row))
        else:
            await self._connection.execute(insert(audit_log).values(row | {"organization_id": entry.organization_id}))

    async def list(self, wanted: AuditFilter, page: PageRequest[UUID]) -> Sequence[AuditEntry]:
        """Newest first."""
        of_organizations = _newest(audit_log, audit_log.c.organization_id, wanted, page)
        if wanted.organization_id is not None:
            statement = of_organizations.where(audit_log.c.organization_id == wanted.organization_id)
            rows = (await self._connection.execute(statement)).mappings()
            return [audit_entry_from_row(row) for row in rows]
        of_nobody = _newest(operator_audit_log, null().cast(Uuid), wanted, page)
        # Each half is cut short by its own index before they are put together.
        both = union_all(of_organizations.subquery().select(), of_nobody.subquery().select()).subquery()
        everything = select(both).order_by(both.c.audit_id.desc()).limit(page.row_count)
        return [audit_entry_from_row(row) for row in (await self._connection.execute(everything)).mappings()]

    async def organizations_since(self, moment: datetime, limit: int) -> dict[UUID, UUID]:
        """Which organization each change concerned that was made at the moment or later, by the change's id."""
        columns = audit_log.c.audit_id, audit_log.c.organization_id
        statement = select(*columns).where(audit_log.c.audit_id >= first_uuid7(moment)).limit(limit)
        return {row.audit_id: row.organization_id for row in await self._connection.execute(statement)}


def _newest(
    log: Table, organization_id: ColumnElement[UUID], wanted: AuditFilter, page: PageRequest[UUID]
) -> Select[tuple[object, ...]]:
    columns = [column for column in log.columns if column.name != "organization_id"]
    statement = select(organization_id.label("organization_id"), *columns)
    statement = statement.where(*_conditions(log, wanted))
    if page.after is not None:
        statement = statement.where(log.c.audit_id < page.after)
    return statement.order_by(log.c.audit_id.desc()).limit(page.row_count)


def _conditions(log: Table, wanted: AuditFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.api_key_id is not None:
        conditions.append(log.c.actor_api_key_id == wanted.api_key_id)
    if wanted.action is not None:
        conditions.append(log.c.action == wanted.action)
    if wanted.subject is not None:
        conditions.append(log.c.subject == wanted.subject)
    if wanted.from_time is not None:
        conditions.append(log.c.create_time >= wanted.from_time)
    if wanted.to_time is not None:
        conditions.append(log.c.create_time < wanted.to_time)
    return conditions


def audit_entry_from_row(row: RowMapping) -> AuditEntry:
    columns = dict(row)
    after, before = columns.pop("details"), columns.pop("before") or {}
    return AuditEntry(**{**columns, "actor_scope": Scope(row["actor_scope"]), "before": before, "after": after})
