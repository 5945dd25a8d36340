"""Changes to accounts. Each change and its line in the audit log are one transaction."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller, Scope, hash_key
from services.common.errors import AlreadyExistsError, ForbiddenError, InvalidRequestError, NotFoundError
from services.common.sealed_secrets import seal
from services.common.settings import SettingError
from services.ledger.accounts import (
    ApiKey,
    NewApiKey,
    NewOrganization,
    NewProject,
    NewProviderKey,
    Organization,
    Project,
    ProviderKey,
    is_sendable,
    organization_uuid,
)
from services.ledger.storage.accounts import AccountStore, AuditEntry
from services.ledger.storage.transactions import transaction

SEED_SETTING = "GATEWAY_API_KEY"
# Who seeds the first key, before there is anybody.
_STARTING_LEDGER = Caller(scope=Scope.SERVICE)


class AccountKeeper:
    """Creates and ends accounts on behalf of a caller. Lives as long as the service."""

    def __init__(
        self,
        database: AsyncEngine,
        provider_key_public: X25519PublicKey,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        new_secret: Callable[[], str],
    ) -> None:
        self._database = database
        self._provider_key_public = provider_key_public
        self._clock = clock
        self._new_id = new_id
        self._new_secret = new_secret

    async def create_organization(self, caller: Caller, new: NewOrganization) -> Organization:
        organization = Organization(
            organization_id=self._new_id(),
            display_name=new.display_name,
            plan=new.plan,
            retention_days=new.retention_days,
            payload_retained=new.payload_retained,
            create_time=self._clock(),
        )
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await store.add_organization(organization)
            entry = self._entry(
                caller,
                "organization.create",
                str(organization.organization_id),
                display_name=new.display_name,
                plan=new.plan.name,
                retention_days=new.retention_days,
                payload_retained=new.payload_retained,
            )
            await store.log(entry, organization.organization_id)
        return organization

    async def create_project(self, caller: Caller, new: NewProject) -> Project:
        """Raises NotFoundError for an unknown organization, AlreadyExistsError for a project id in use."""
        project = Project(
            organization_id=organization_uuid(caller.one_organization(new.organization_id)),
            project_id=new.project_id,
            mode=new.mode,
            create_time=self._clock(),
        )
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await _require_organization(store, project.organization_id)
            if not await store.add_project(project):
                raise AlreadyExistsError(
                    f"Project {new.project_id} exists already; choose another id.", project_id=new.project_id
                )
            entry = self._entry(caller, "project.create", new.project_id, mode=new.mode.name)
            await store.log(entry, project.organization_id)
        return project

    async def create_api_key(self, caller: Caller, new: NewApiKey) -> tuple[ApiKey, str]:
        """The key as known from now on, and the key itself, which is kept nowhere.

        Raises ForbiddenError for a key wider than the caller's, NotFoundError for an unknown organization or project.
        """
        key = self._api_key(new, _organization_of_key(caller, new))
        secret = self._new_secret()
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await _require_place(store, key)
            if not await store.add_api_key(key, hash_key(secret)):
                raise RuntimeError("256 random bits came up twice")
            await store.log(self._key_entry(caller, key), key.organization_id)
        return key, secret

    async def revoke_api_key(self, caller: Caller, api_key_id: str) -> ApiKey:
        """The key as ended, now or before. Raises NotFoundError for one that is missing or not the caller's."""
        key_id = _api_key_uuid(api_key_id)
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            key = await store.find_api_key(key_id)
            if key is None or not (caller.reaches_all or str(key.organization_id) == caller.organization_id):
                raise NotFoundError(f"API key {key_id}")
            revoked = await store.revoke_api_key(key_id, self._clock())
            if revoked is None:
                return key
            await store.log(self._entry(caller, "api_key.revoke", str(key_id)), key.organization_id)
        return revoked

    async def set_provider_key(self, caller: Caller, new: NewProviderKey) -> ProviderKey:
        """Raises NotFoundError for an unknown organization."""
        organization_id = organization_uuid(caller.one_organization(new.organization_id))
        key = ProviderKey(
            organization_id=organization_id,
            provider=new.provider,
            sealed_secret=seal(
                new.secret, self._provider_key_public, organization_id=str(organization_id), provider=new.provider
            ),
            update_time=self._clock(),
        )
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            await _require_organization(store, organization_id)
            await store.put_provider_key(key)
            await store.log(self._entry(caller, "provider_key.set", new.provider), organization_id)
        return key

    async def seed_operator_key(self, secret: str) -> None:
        """Makes sure that this operator key exists. Earlier ones stay, and one that was revoked stays revoked.

        Raises SettingError for a key that no client could send.
        """
        if not is_sendable(secret):
            raise SettingError(f"{SEED_SETTING} must be 1 to 512 visible ASCII characters without spaces")
        new = NewApiKey(
            scope=Scope.OPERATOR,
            organization_id="",
            project_id=None,
            display_name=SEED_SETTING,
            read_only=False,
            expire_time=None,
        )
        key = self._api_key(new, None)
        async with transaction(self._database) as connection:
            store = AccountStore(connection)
            if await store.add_api_key(key, hash_key(secret)):
                await store.log(self._key_entry(_STARTING_LEDGER, key), None)

    def _api_key(self, new: NewApiKey, organization_id: UUID | None) -> ApiKey:
        now = self._clock()
        if new.expire_time is not None and new.expire_time <= now:
            raise InvalidRequestError("expire_time", "must be in the future")
        return ApiKey(
            api_key_id=self._new_id(),
            scope=new.scope,
            organization_id=organization_id,
            project_id=new.project_id,
            display_name=new.display_name,
            read_only=new.read_only,
            create_time=now,
            expire_time=new.expire_time,
            revoke_time=None,
        )

    def _key_entry(self, caller: Caller, key: ApiKey) -> AuditEntry:
        return self._entry(
            caller,
            "api_key.create",
            str(key.api_key_id),
            scope=key.scope.name,
            project_id=key.project_id,
            display_name=key.display_name,
            read_only=key.read_only,
            expire_time=None if key.expire_time is None else key.expire_time.isoformat(),
        )

    def _entry(self, caller: Caller, action: str, subject: str, **details: str | int | bool | None) -> AuditEntry:
        return AuditEntry(
            audit_id=self._new_id(),
            create_time=self._clock(),
            actor_scope=caller.scope,
            actor_api_key_id=None if caller.api_key_id is None else UUID(caller.api_key_id),
            action=action,
            subject=subject,
            details=details,
        )


def _organization_of_key(caller: Caller, new: NewApiKey) -> UUID | None:
    """Whose the key will be. Raises ForbiddenError where it would reach further than the caller's."""
    if new.scope < caller.scope:
        scope = new.scope.name.lower()
        raise ForbiddenError(f"This key may not create keys of scope {scope}.", scope=scope)
    if new.scope is Scope.OPERATOR:
        return None
    return organization_uuid(caller.one_organization(new.organization_id))


async def _require_organization(store: AccountStore, organization_id: UUID) -> None:
    if not await store.has_organization(organization_id):
        raise NotFoundError(f"organization {organization_id}")


async def _require_place(store: AccountStore, key: ApiKey) -> None:
    """Raises NotFoundError unless the organization and project that the key names exist."""
    if key.organization_id is None:
        return
    await _require_organization(store, key.organization_id)
    if key.project_id is not None and not await store.has_project(key.organization_id, key.project_id):
        raise NotFoundError(f"project {key.project_id}")


def _api_key_uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        # An id in a path: one that cannot exist is as absent as one that does not.
        raise NotFoundError("API key whose id is not a UUID") from error
