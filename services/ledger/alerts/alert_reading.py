"""Shows alert rules and alerts to those who may see them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.authentication import Caller
from services.ledger.accounts.accounts import require_name
from services.ledger.accounts.reach import foreign, organization_or_all
from services.ledger.alerts.alert_keeping import find_own
from services.ledger.alerts.alert_rules import Alert, AlertRule
from services.ledger.paging import BY_ID, Page, page_request
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.alerts.alerts import AlertFilter, AlertRuleFilter, AlertStore
from services.ledger.storage.transactions import transaction


class AlertReader:
    """Answers on behalf of a caller, in the words of a request: "" is left out. Lives as long as the service.

    Every `list_…` raises InvalidRequestError, naming the parameter, ForbiddenError for a filter that names what is not
    the caller's, and NotFoundError for an organization that does not exist.
    """

    def __init__(self, database: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def rule(self, caller: Caller, organization_id: str, alert_rule_id: str) -> AlertRule:
        """Raises NotFoundError for one that is missing or not the caller's."""
        async with transaction(self._database) as connection:
            return await find_own(AlertStore(connection), caller, organization_id, alert_rule_id)

    async def list_rules(
        self,
        caller: Caller,
        organization_id: str,
        project_id: str,
        wanted: AlertRuleFilter,
        *,
        limit: str,
        page_token: str,
    ) -> Page[AlertRule]:
        own_id, project = organization_or_all(caller, organization_id), _project(caller, project_id)
        wanted = replace(wanted, organization_id=own_id, project_id=project)
        page = page_request(BY_ID, limit=limit, page_token=page_token, filters=["alert_rules", wanted])
        async with transaction(self._database) as connection:
            await _require_own(connection, caller, own_id, project)
            rows = await AlertStore(connection).list_rules(wanted, page)
        return page.page(rows, lambda row: row.alert_rule_id)

    async def list_alerts(
        self,
        caller: Caller,
        organization_id: str,
        project_id: str,
        wanted: AlertFilter,
        *,
        limit: str,
        page_token: str,
    ) -> Page[Alert]:
        own_id, project = organization_or_all(caller, organization_id), _project(caller, project_id)
        wanted = replace(wanted, organization_id=own_id, project_id=project)
        page = page_request(BY_ID, limit=limit, page_token=page_token, filters=["alerts", wanted])
        async with transaction(self._database) as connection:
            await _require_own(connection, caller, own_id, project)
            rows = await AlertStore(connection).list_alerts(wanted, page, self._clock())
        return page.page(rows, lambda row: row.alert_id)


def _project(caller: Caller, named: str) -> str | None:
    if named:
        require_name("project_id", named)
    return caller.project(named)


async def _require_own(
    connection: AsyncConnection, caller: Caller, organization_id: UUID | None, project_id: str | None
) -> None:
    """Raises NotFoundError for an unknown organization, ForbiddenError for a project that is not the caller's."""
    if organization_id is None:
        return
    store = AccountStore(connection)
    await store.require_organization(organization_id)
    is_filter = project_id is not None and caller.project_id is None and not caller.reaches_all
    if is_filter and await store.find_project(organization_id, project_id or "") is None:
        raise foreign("project", project_id or "")
