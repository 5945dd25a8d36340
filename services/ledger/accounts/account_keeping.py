"""Changes to organizations and projects. Each change and its line in the audit log are one transaction."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller
from services.common.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from services.ledger.accounts.accounts import (
    NewOrganization,
    NewProject,
    Organization,
    OrganizationChange,
    Project,
    ProjectChange,
)
from services.ledger.accounts.change_log import ChangeLog
from services.ledger.accounts.key_keeping import key_of
from services.ledger.accounts.reach import name_in_path, one_organization, organization_in_path
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.accounts.keys import KeyStore
from services.ledger.storage.transactions import transaction


class AccountKeeper:
    """Creates and changes organizations and projects on behalf of a caller. Lives as long as the service."""

    def __init__(self, database: AsyncEngine, *, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._log = ChangeLog(clock=clock, new_id=new_id)

    async def create_organization(self, caller: Caller, new: NewOrganization) -> Organization:
        made = Organization(
            organization_id=self._new_id(),
            display_name=new.display_name,
            plan=new.plan,
            retention_days=new.retention_days,
            payload_retained=new.payload_retained,
            create_time=self._clock(),
            spending_limit=new.spending_limit,
        )
        own_id = made.organization_id
        async with transaction(self._database) as connection:
            await AccountStore(connection).add_organization(made)
            await self._log.write(
                connection, caller, "organization.create", str(own_id), organization_id=own_id, after=made.settings
            )
        return made

    async def update_organization(
        self, caller: Caller, organization_id: str, change: OrganizationChange
    ) -> Organization:
        """The organization as it is since.

        Raises NotFoundError for one that is missing or not the caller's, ForbiddenError for what only operators change,
        and for a limit that is to be changed by a key that has one.
        """
        own_id = organization_in_path(caller, organization_id)
        if change.changes_plan and not caller.reaches_all:
            raise ForbiddenError("Only operators change plan and retention_days; leave them out.")
        async with transaction(self._database) as connection:
            if change.changes_limit and (callers := await key_of(caller, KeyStore(connection))) is not None:
                callers.require_may_limit()
            store = AccountStore(connection)
            before = await store.find_organization(own_id, lock=True)
            if before is None:
                raise NotFoundError(f"organization {own_id}")
            after = change.applied_to(before)
            if after == before:
                return before
            await store.change_organization(after)
            if (after.plan, after.retention_days) != (before.plan, before.retention_days):
                await store.add_plan(after, self._clock())
            await self._log.write(
                connection,
                caller,
                "organization.update",
                str(own_id),
                organization_id=own_id,
                before=before.settings,
                after=after.settings,
            )
        return after

    async def create_project(self, caller: Caller, new: NewProject) -> Project:
        """Raises NotFoundError for an unknown organization, AlreadyExistsError for a project id in use."""
        own_id = one_organization(caller, new.organization_id)
        made = Project(
            organization_id=own_id,
            project_id=new.project_id,
            mode=new.mode,
            create_time=self._clock(),
            archive_time=None,
            call_settings=new.call_settings,
        )
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await store.require_organization(own_id)
            if not await store.add_project(made):
                raise AlreadyExistsError(
                    f"Project {new.project_id} exists already; choose another id.", project_id=new.project_id
                )
            await self._log.write(
                connection, caller, "project.create", new.project_id, organization_id=own_id, after=made.settings
            )
        return made

    async def update_project(
        self, caller: Caller, organization_id: str, project_id: str, change: ProjectChange
    ) -> Project:
        """The project as it is since. Raises NotFoundError for one that is missing or not the caller's."""
        own_id = one_organization(caller, organization_id)
        name = name_in_path("project", project_id)
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            before = await store.find_project(own_id, name, lock=True)
            if before is None:
                raise NotFoundError(f"project {name}")
            after = change.applied_to(before, self._clock())
            if after == before:
                return before
            await store.change_project(after)
            await self._log.write(
                connection,
                caller,
                "project.update",
                name,
                organization_id=own_id,
                before=before.settings,
                after=after.settings,
            )
        return after
