"""Keepers of accounts over a real database, with a clock that tests set, and values for them to keep."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.common.authentication import Caller, Scope
from services.common.database import open_database
from services.common.uuid7 import new_uuid7
from services.ledger.accounts.account_keeping import AccountKeeper
from services.ledger.accounts.account_reading import AccountReader
from services.ledger.accounts.accounts import (
    NewOrganization,
    NewProject,
    OrganizationChange,
    Plan,
    ProjectChange,
    ProjectMode,
)
from services.ledger.accounts.key_keeping import KeyKeeper
from services.ledger.accounts.keys import ApiKey, ApiKeyChange, NewApiKey, NewProviderKey
from services.ledger.accounts.spending_limits import SpendingLimit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATOR = Caller(scope=Scope.OPERATOR, api_key_id="0199a000-0000-7000-8000-000000000009")
_numbers = count(1)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, slots=True)
class Keepers:
    """All that keeps and shows accounts."""

    accounts: AccountKeeper
    keys: KeyKeeper
    reader: AccountReader
    clock: Clock
    router_private_key: X25519PrivateKey

    async def organization(self, new: NewOrganization | None = None) -> UUID:
        return (await self.accounts.create_organization(OPERATOR, new or an_organization())).organization_id


@asynccontextmanager
async def keepers_of(database_url: str) -> AsyncIterator[Keepers]:
    engine = open_database(database_url)
    clock, private_key = Clock(), X25519PrivateKey.generate()
    keys = KeyKeeper(
        engine,
        private_key.public_key(),
        clock=clock,
        new_id=new_uuid7,
        new_secret=lambda: f"tg_{next(_numbers)}",
    )
    accounts = AccountKeeper(engine, clock=clock, new_id=new_uuid7)
    yield Keepers(accounts, keys, AccountReader(engine), clock, private_key)
    await engine.dispose()


def bearer_of(key: ApiKey) -> Caller:
    """Whoever calls with this key."""
    return Caller(
        scope=key.scope,
        organization_id=None if key.organization_id is None else str(key.organization_id),
        project_id=key.project_id,
        api_key_id=str(key.api_key_id),
        read_only=key.read_only,
    )


def an_organization(
    display_name: str = "Acme", *, plan: Plan = Plan.PRO, retention_days_agreed: int | None = None
) -> NewOrganization:
    return NewOrganization(
        display_name=display_name,
        plan=plan,
        retention_days_agreed=retention_days_agreed,
        payload_retained=False,
    )


def organization_change(
    *,
    display_name: str | None = None,
    plan: Plan | None = None,
    retention_days_agreed: int | None = None,
    payload_retained: bool | None = None,
) -> OrganizationChange:
    return OrganizationChange(
        display_name=display_name,
        plan=plan,
        retention_days_agreed=retention_days_agreed,
        payload_retained=payload_retained,
    )


def a_project(organization_id: UUID | str = "", project_id: str = "web") -> NewProject:
    return NewProject(organization_id=str(organization_id), project_id=project_id, mode=ProjectMode.CREDITS)


def project_change(*, mode: ProjectMode | None = None, archived: bool | None = None) -> ProjectChange:
    return ProjectChange(mode=mode, archived=archived)


def an_api_key(
    organization_id: UUID | str = "",
    scope: Scope = Scope.ORGANIZATION,
    *,
    project_id: str | None = None,
    read_only: bool = False,
    expire_time: datetime | None = None,
    spending_limit: SpendingLimit | None = None,
) -> NewApiKey:
    return NewApiKey(
        scope=scope,
        organization_id=str(organization_id),
        project_id=project_id,
        display_name="CI",
        read_only=read_only,
        expire_time=expire_time,
        spending_limit=spending_limit,
    )


def api_key_change(
    *,
    display_name: str | None = None,
    expire_time: datetime | None = None,
    spending_limit: SpendingLimit | None = None,
    clear_spending_limit: bool = False,
) -> ApiKeyChange:
    return ApiKeyChange(
        display_name=display_name,
        expire_time=expire_time,
        spending_limit=spending_limit,
        clear_spending_limit=clear_spending_limit,
    )


def a_provider_key(organization_id: UUID | str = "", *, secret: str, provider: str = "openai") -> NewProviderKey:
    return NewProviderKey(organization_id=str(organization_id), provider=provider, secret=secret)
