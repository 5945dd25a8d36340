"""Organizations, projects, keys and the audit log in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    SmallInteger,
    Table,
    Text,
    Uuid,
    and_,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.authentication import Scope
from services.ledger.accounts import ApiKey, Organization, Project, ProjectMode, ProviderKey

# Only what the SQL below needs; the constraints are in the migrations.
_metadata = MetaData(schema="ledger")
_TIME = DateTime(timezone=True)

organization = Table(
    "organization",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("display_name", Text),
    Column("plan", SmallInteger),
    Column("retention_days", Integer),
    Column("payload_retained", Boolean),
    Column("create_time", _TIME),
)
project = Table(
    "project",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("mode", SmallInteger),
    Column("create_time", _TIME),
)
api_key = Table(
    "api_key",
    _metadata,
    Column("key_hash", LargeBinary, primary_key=True),
    Column("api_key_id", Uuid),
    Column("scope", SmallInteger),
    Column("organization_id", Uuid),
    Column("project_id", Text),
    Column("read_only", Boolean),
    Column("display_name", Text),
    Column("create_time", _TIME),
    Column("expire_time", _TIME),
    Column("revoke_time", _TIME),
)
provider_key = Table(
    "provider_key",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("sealed_secret", LargeBinary),
    Column("update_time", _TIME),
)


def _log_columns() -> tuple[Column[Any], ...]:
    return (
        Column("audit_id", Uuid, primary_key=True),
        Column("create_time", _TIME),
        Column("actor_scope", SmallInteger),
        Column("actor_api_key_id", Uuid),
        Column("action", Text),
        Column("subject", Text),
        Column("details", JSONB),
    )


audit_log = Table("audit_log", _metadata, Column("organization_id", Uuid, primary_key=True), *_log_columns())
operator_audit_log = Table("operator_audit_log", _metadata, *_log_columns())

_API_KEY_COLUMNS = [column for column in api_key.columns if column is not api_key.c.key_hash]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, and when."""

    audit_id: UUID
    create_time: datetime
    actor_scope: Scope
    # None for our services.
    actor_api_key_id: UUID | None
    # "project.create"
    action: str
    # The id of what it was done to.
    subject: str
    # The values set, never a secret.
    details: Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a model call needs to know of an organization and one of its projects."""

    payload_retained: bool
    # None when the organization has no such project.
    project_mode: ProjectMode | None
    # Those that the project's mode uses, by provider.
    sealed_secrets: Mapping[str, bytes]


class AccountStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_organization(self, new: Organization) -> None:
        row = {
            "organization_id": new.organization_id,
            "display_name": new.display_name,
            "plan": int(new.plan),
            "retention_days": new.retention_days,
            "payload_retained": new.payload_retained,
            "create_time": new.create_time,
        }
        await self._connection.execute(insert(organization).values(row))

    async def has_organization(self, organization_id: UUID) -> bool:
        return await self._any(organization.c.organization_id == organization_id)

    async def add_project(self, new: Project) -> bool:
        """False when the organization has a project of this id."""
        row = {
            "organization_id": new.organization_id,
            "project_id": new.project_id,
            "mode": int(new.mode),
            "create_time": new.create_time,
        }
        statement = insert_or(project).values(row).on_conflict_do_nothing().returning(project.c.project_id)
        return (await self._connection.execute(statement)).first() is not None

    async def has_project(self, organization_id: UUID, project_id: str) -> bool:
        return await self._any(and_(project.c.organization_id == organization_id, project.c.project_id == project_id))

    async def add_api_key(self, new: ApiKey, key_hash: bytes) -> bool:
        """False when the key is there already."""
        statement = insert_or(api_key).values(api_key_to_row(new) | {"key_hash": key_hash})
        statement = statement.on_conflict_do_nothing(index_elements=[api_key.c.key_hash])
        result = await self._connection.execute(statement.returning(api_key.c.api_key_id))
        return result.first() is not None

    async def find_api_key_by_hash(self, key_hash: bytes) -> ApiKey | None:
        return await self._find_api_key(api_key.c.key_hash == key_hash)

    async def find_api_key(self, api_key_id: UUID) -> ApiKey | None:
        return await self._find_api_key(api_key.c.api_key_id == api_key_id)

    async def revoke_api_key(self, api_key_id: UUID, now: datetime) -> ApiKey | None:
        """The key as ended, or None when it had ended before."""
        statement = (
            update(api_key)
            .where(api_key.c.api_key_id == api_key_id, api_key.c.revoke_time.is_(None))
            # The clock of the machine that made the key may have been ahead of this one's.
            .values(revoke_time=func.greatest(api_key.c.create_time, now))
            .returning(*_API_KEY_COLUMNS)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else api_key_from_row(row)

    async def put_provider_key(self, new: ProviderKey) -> None:
        """Replaces the organization's earlier key for this provider."""
        values = {"sealed_secret": new.sealed_secret, "update_time": new.update_time}
        statement = insert_or(provider_key).values(organization_id=new.organization_id, provider=new.provider, **values)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[provider_key.c.organization_id, provider_key.c.provider], set_=values
            )
        )

    async def standing(self, organization_id: UUID, project_id: str | None) -> Standing:
        """One statement, for it is asked before every model call whose key is not in the router's cache."""
        uses_own_keys = project.c.mode.in_([int(ProjectMode.OWN_KEYS), int(ProjectMode.HYBRID)])
        statement = (
            select(
                organization.c.payload_retained,
                project.c.mode,
                provider_key.c.provider,
                provider_key.c.sealed_secret,
            )
            .select_from(organization)
            .outerjoin(
                project,
                and_(project.c.organization_id == organization.c.organization_id, project.c.project_id == project_id),
            )
            .outerjoin(
                provider_key, and_(provider_key.c.organization_id == organization.c.organization_id, uses_own_keys)
            )
            .where(organization.c.organization_id == organization_id)
            .order_by(provider_key.c.provider)
        )
        rows = (await self._connection.execute(statement)).all()
        mode = rows[0].mode
        return Standing(
            payload_retained=rows[0].payload_retained,
            project_mode=None if mode is None else ProjectMode(mode),
            sealed_secrets={row.provider: row.sealed_secret for row in rows if row.provider is not None},
        )

    async def log(self, entry: AuditEntry, organization_id: UUID | None) -> None:
        """Writes to the organization's log, or to the operators' where the change belongs to no organization."""
        row = {
            "audit_id": entry.audit_id,
            "create_time": entry.create_time,
            "actor_scope": int(entry.actor_scope),
            "actor_api_key_id": entry.actor_api_key_id,
            "action": entry.action,
            "subject": entry.subject,
            "details": dict(entry.details),
        }
        if organization_id is None:
            await self._connection.execute(insert(operator_audit_log).values(row))
        else:
            await self._connection.execute(insert(audit_log).values(row | {"organization_id": organization_id}))

    async def _any(self, condition: ColumnElement[bool]) -> bool:
        return bool((await self._connection.execute(select(exists().where(condition)))).scalar_one())

    async def _find_api_key(self, condition: ColumnElement[bool]) -> ApiKey | None:
        result = await self._connection.execute(select(*_API_KEY_COLUMNS).where(condition))
        row = result.mappings().one_or_none()
        return None if row is None else api_key_from_row(row)


def api_key_to_row(key: ApiKey) -> dict[str, object]:
    return {
        "api_key_id": key.api_key_id,
        "scope": int(key.scope),
        "organization_id": key.organization_id,
        "project_id": key.project_id,
        "read_only": key.read_only,
        "display_name": key.display_name,
        "create_time": key.create_time,
        "expire_time": key.expire_time,
        "revoke_time": key.revoke_time,
    }


def api_key_from_row(row: RowMapping) -> ApiKey:
    return ApiKey(**{**row, "scope": Scope(row["scope"])})
