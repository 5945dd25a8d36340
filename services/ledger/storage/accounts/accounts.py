"""Organizations and projects in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import RowMapping, and_, exists, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.errors import NotFoundError
from services.ledger.accounts.accounts import Organization, Plan, Project, ProjectMode
from services.ledger.accounts.call_settings import AS_CONFIGURED, ProjectSettings
from services.ledger.paging import PageRequest, TimeAndName
from services.ledger.storage.accounts.account_tables import organization, organization_plan, project, provider_key
from services.ledger.storage.accounts.call_settings import (
    SETTINGS_COLUMNS,
    SETTINGS_NAMES,
    project_settings_from_row,
    project_settings_to_row,
)
from services.ledger.storage.books.spending_limits import limit_from_row, limit_to_row

# The finest step of PostgreSQL's clock.
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a model call needs to know of an organization and one of its projects."""

    payload_retained: bool
    # None when the organization has no such project, or it is archived.
    project_mode: ProjectMode | None
    call_settings: ProjectSettings
    # Those that the project's mode uses, by provider.
    sealed_secrets: Mapping[str, bytes]


class AccountStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    # Organizations

    async def add_organization(self, new: Organization) -> None:
        await self._connection.execute(insert(organization).values(organization_to_row(new)))
        await self._add_plan(new, new.create_time)

    async def has_organization(self, organization_id: UUID) -> bool:
        statement = select(exists().where(organization.c.organization_id == organization_id))
        return bool((await self._connection.execute(statement)).scalar_one())

    async def require_organization(self, organization_id: UUID) -> None:
        """Raises NotFoundError unless it exists."""
        if not await self.has_organization(organization_id):
            raise NotFoundError(f"organization {organization_id}")

    async def find_organization(self, organization_id: UUID, *, lock: bool = False) -> Organization | None:
        """`lock` makes other changes of it wait until the transaction ends."""
        statement = select(organization).where(organization.c.organization_id == organization_id)
        if lock:
            statement = statement.with_for_update(key_share=True)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else organization_from_row(row)

    async def list_organizations(self, page: PageRequest[UUID]) -> list[Organization]:
        statement = select(organization).order_by(organization.c.organization_id.desc()).limit(page.row_count)
        if page.after is not None:
            statement = statement.where(organization.c.organization_id < page.after)
        return [organization_from_row(row) for row in (await self._connection.execute(statement)).mappings()]

    async def change_organization(self, changed: Organization) -> None:
        """Must be locked."""
        row = organization_to_row(changed)
        condition = organization.c.organization_id == row.pop("organization_id")
        await self._connection.execute(update(organization).where(condition).values(row))

    async def add_plan(self, changed: Organization, now: datetime) -> None:
        """Keeps that the plan holds from now on. The organization must be locked."""
        latest = select(func.max(organization_plan.c.valid_from)).where(
            organization_plan.c.organization_id == changed.organization_id
        )
        before: datetime | None = (await self._connection.execute(latest)).scalar_one()
        # The clock of the machine that made the last change may have been ahead of this one's.
        await self._add_plan(changed, now if before is None else max(now, before + _TICK))

    async def _add_plan(self, changed: Organization, valid_from: datetime) -> None:
        row = {
            "organization_id": changed.organization_id,
            "valid_from": valid_from,
            "plan": int(changed.plan),
            "retention_days": changed.retention_days,
        }
        await self._connection.execute(insert(organization_plan).values(row))

    # Projects

    async def add_project(self, new: Project) -> bool:
        """False when the organization has a project of this id."""
        statement = insert_or(project).values(project_to_row(new)).on_conflict_do_nothing()
        return (await self._connection.execute(statement.returning(project.c.project_id))).first() is not None

    async def find_project(self, organization_id: UUID, project_id: str, *, lock: bool = False) -> Project | None:
        """`lock` makes other changes of it wait until the transaction ends."""
        statement = select(project).where(
            project.c.organization_id == organization_id, project.c.project_id == project_id
        )
        if lock:
            statement = statement.with_for_update(key_share=True)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else project_from_row(row)

    async def list_projects(
        self, organization_id: UUID, project_id: str | None, page: PageRequest[TimeAndName]
    ) -> list[Project]:
        """All of an organization, or the one."""
        place = tuple_(project.c.create_time, project.c.project_id)
        statement = select(project).where(project.c.organization_id == organization_id)
        statement = statement.order_by(project.c.create_time.desc(), project.c.project_id.desc()).limit(page.row_count)
        if project_id is not None:
            statement = statement.where(project.c.project_id == project_id)
        if page.after is not None:
            statement = statement.where(place < page.after)
        return [project_from_row(row) for row in (await self._connection.execute(statement)).mappings()]

    async def change_project(self, changed: Project) -> None:
        """Must be locked."""
        condition = and_(
            project.c.organization_id == changed.organization_id, project.c.project_id == changed.project_id
        )
        row = project_to_row(changed)
        values = {name: row[name] for name in ("mode", "archive_time", *SETTINGS_NAMES)}
        await self._connection.execute(update(project).where(condition).values(values))

    # Model calls

    async def standing(self, organization_id: UUID, project_id: str | None) -> Standing:
        """One statement, for it is asked before every model call whose key is not in the router's cache."""
        uses_own_keys = project.c.mode.in_([int(ProjectMode.OWN_KEYS), int(ProjectMode.HYBRID)])
        statement = (
            select(
                organization.c.payload_retained,
                project.c.mode,
                *SETTINGS_COLUMNS,
                provider_key.c.provider,
                provider_key.c.sealed_secret,
            )
            .select_from(organization)
            .outerjoin(
                project,
                and_(
                    project.c.organization_id == organization.c.organization_id,
                    project.c.project_id == project_id,
                    project.c.archive_time.is_(None),
                ),
            )
            .outerjoin(
                provider_key, and_(provider_key.c.organization_id == organization.c.organization_id, uses_own_keys)
            )
            .where(organization.c.organization_id == organization_id)
            .order_by(provider_key.c.provider)
        )
        rows = (await self._connection.execute(statement)).mappings().all()
        mode = rows[0]["mode"]
        return Standing(
            payload_retained=rows[0]["payload_retained"],
            project_mode=None if mode is None else ProjectMode(mode),
            call_settings=AS_CONFIGURED if mode is None else project_settings_from_row(rows[0]),
            sealed_secrets={row["provider"]: row["sealed_secret"] for row in rows if row["provider"] is not None},
        )


def organization_to_row(value: Organization) -> dict[str, object]:
    return {
        "organization_id": value.organization_id,
        "display_name": value.display_name,
        "plan": int(value.plan),
        "retention_days": value.retention_days,
        "payload_retained": value.payload_retained,
        "create_time": value.create_time,
        **limit_to_row(value.spending_limit),
    }


def organization_from_row(row: RowMapping) -> Organization:
    columns = dict(row)
    limit = limit_from_row(columns.pop("spending_limit_pico"), columns.pop("spending_period"))
    return Organization(**{**columns, "plan": Plan(row["plan"]), "spending_limit": limit})


def project_to_row(value: Project) -> dict[str, object]:
    return {
        "organization_id": value.organization_id,
        "project_id": value.project_id,
        "mode": int(value.mode),
        "create_time": value.create_time,
        "archive_time": value.archive_time,
        **project_settings_to_row(value.call_settings),
    }


def project_from_row(row: RowMapping) -> Project:
    return Project(
        organization_id=row["organization_id"],
        project_id=row["project_id"],
        mode=ProjectMode(row["mode"]),
        create_time=row["create_time"],
        archive_time=row["archive_time"],
        call_settings=project_settings_from_row(row),
    )
