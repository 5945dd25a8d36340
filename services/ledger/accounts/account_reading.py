"""Shows organizations, projects, keys and what became of them, to those who may see them."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller
from services.common.errors import NotFoundError
from services.ledger.accounts.accounts import Organization, Project, require_name
from services.ledger.accounts.audit import AuditEntry
from services.ledger.accounts.keys import ApiKey, ProviderKey
from services.ledger.accounts.reach import (
    foreign,
    name_in_path,
    one_organization,
    organization_in_path,
    organization_or_all,
    own_key,
    reaches_key,
    uuid_in_path,
)
from services.ledger.paging import BY_ID, BY_TIME_AND_NAME, Page, TimeAndName, page_request
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.accounts.audit import AuditFilter, AuditStore
from services.ledger.storage.accounts.keys import KeyStore
from services.ledger.storage.transactions import transaction


class AccountReader:
    """Answers on behalf of a caller, in the words of a request: "" is left out. Lives as long as the service.

    Every `list_…` raises InvalidRequestError, naming the parameter, ForbiddenError for a filter that names what is not
    the caller's, and NotFoundError for an organization that does not exist.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def organization(self, caller: Caller, organization_id: str) -> Organization:
        """Raises NotFoundError for one that is missing or not the caller's."""
        own_id = organization_in_path(caller, organization_id)
        async with transaction(self._database) as connection:
            found = await AccountStore(connection).find_organization(own_id)
        if found is None:
            raise NotFoundError(f"organization {own_id}")
        return found

    async def list_organizations(self, *, limit: str, page_token: str) -> Page[Organization]:
        page = page_request(BY_ID, limit=limit, page_token=page_token, filters=["organizations"])
        async with transaction(self._database) as connection:
            rows = await AccountStore(connection).list_organizations(page)
        return page.page(rows, lambda row: row.organization_id)

    async def project(self, caller: Caller, organization_id: str, project_id: str) -> Project:
        """Raises NotFoundError for one that is missing or not the caller's."""
        own_id = one_organization(caller, organization_id)
        name = name_in_path("project", project_id)
        async with transaction(self._database) as connection:
            found = await AccountStore(connection).find_project(own_id, name)
        if found is None or caller.project_id not in (None, name):
            raise NotFoundError(f"project {name}")
        return found

    async def list_projects(
        self, caller: Caller, organization_id: str, *, limit: str, page_token: str
    ) -> Page[Project]:
        """A project key sees its own."""
        own_id = one_organization(caller, organization_id)
        filters = ["projects", own_id, caller.project_id]
        page = page_request(BY_TIME_AND_NAME, limit=limit, page_token=page_token, filters=filters)
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await store.require_organization(own_id)
            rows = await store.list_projects(own_id, caller.project_id, page)
        return page.page(rows, lambda row: TimeAndName(row.create_time, row.project_id))

    async def api_key(self, caller: Caller, api_key_id: str) -> ApiKey:
        """Raises NotFoundError for one that is missing or not the caller's."""
        key_id = uuid_in_path("API key", api_key_id)
        async with transaction(self._database) as connection:
            return own_key(caller, key_id, await KeyStore(connection).find_api_key(key_id))

    async def list_api_keys(
        self, caller: Caller, organization_id: str, project_id: str, *, limit: str, page_token: str
    ) -> Page[ApiKey]:
        """A project key sees itself; an operator who names no organization every key there is."""
        own_id, project = organization_or_all(caller, organization_id), _project(caller, project_id)
        itself = None if caller.project_id is None or caller.api_key_id is None else UUID(caller.api_key_id)
        filters = ["api_keys", own_id, project, itself]
        page = page_request(BY_ID, limit=limit, page_token=page_token, filters=filters)
        async with transaction(self._database) as connection:
            if own_id is not None:
                await AccountStore(connection).require_organization(own_id)
            if own_id is not None and project is not None and not caller.reaches_all:
                await _require_own_project(AccountStore(connection), own_id, project)
            rows = await KeyStore(connection).list_api_keys(
                page, organization_id=own_id, project_id=project, api_key_id=itself
            )
        return page.page(rows, lambda row: row.api_key_id)

    async def list_provider_keys(
        self, caller: Caller, organization_id: str, *, limit: str, page_token: str
    ) -> Page[ProviderKey]:
        own_id = one_organization(caller, organization_id)
        filters = ["provider_keys", own_id]
        page = page_request(BY_TIME_AND_NAME, limit=limit, page_token=page_token, filters=filters)
        async with transaction(self._database) as connection:
            await AccountStore(connection).require_organization(own_id)
            rows = await KeyStore(connection).list_provider_keys(own_id, page)
        return page.page(rows, lambda row: TimeAndName(row.update_time, row.provider))

    async def list_audit_entries(
        self, caller: Caller, organization_id: str, wanted: AuditFilter, *, limit: str, page_token: str
    ) -> Page[AuditEntry]:
        """An operator who names no organization sees what belongs to none as well."""
        wanted = replace(wanted, organization_id=organization_or_all(caller, organization_id))
        page = page_request(BY_ID, limit=limit, page_token=page_token, filters=["audit_entries", wanted])
        async with transaction(self._database) as connection:
            if wanted.organization_id is not None:
                await AccountStore(connection).require_organization(wanted.organization_id)
            if wanted.api_key_id is not None and not caller.reaches_all:
                await _require_own_key(KeyStore(connection), caller, wanted.api_key_id)
            rows = await AuditStore(connection).list(wanted, page)
        return page.page(rows, lambda row: row.audit_id)


def _project(caller: Caller, named: str) -> str | None:
    if named:
        require_name("project_id", named)
    return caller.project(named)


async def _require_own_project(store: AccountStore, organization_id: UUID, project_id: str) -> None:
    """Raises ForbiddenError for a filter that names another's."""
    if await store.find_project(organization_id, project_id) is None:
        raise foreign("project", project_id)


async def _require_own_key(store: KeyStore, caller: Caller, api_key_id: UUID) -> None:
    """Raises ForbiddenError for a filter that names another's."""
    key = await store.find_api_key(api_key_id)
    if key is None or not reaches_key(caller, key):
        raise foreign("API key", str(api_key_id))
