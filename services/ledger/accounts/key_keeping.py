"""Changes to API keys and own provider keys. Each change and its line in the audit log are one transaction."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.authentication import Caller, Scope, hash_key
from services.common.errors import ForbiddenError, InvalidRequestError, NotFoundError
from services.common.sealed_secrets import seal
from services.common.settings import SettingError
from services.ledger.accounts.audit import Settings
from services.ledger.accounts.change_log import ChangeLog
from services.ledger.accounts.keys import ApiKey, ApiKeyChange, NewApiKey, NewProviderKey, ProviderKey, is_sendable
from services.ledger.accounts.reach import name_in_path, one_organization, own_key, uuid_in_path
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.accounts.keys import KeyStore
from services.ledger.storage.transactions import transaction

SEED_SETTING = "GATEWAY_API_KEY"
# Who seeds the first key, before there is anybody.
_STARTING_LEDGER = Caller(scope=Scope.SERVICE)


class KeyKeeper:
    """Creates, changes and ends keys on behalf of a caller. Lives as long as the service."""

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
        self._log = ChangeLog(clock=clock, new_id=new_id)

    # API keys

    async def create_api_key(self, caller: Caller, new: NewApiKey) -> tuple[ApiKey, str]:
        """The key as known from now on, and the key itself, which is kept nowhere.

        Raises ForbiddenError for a key that could do more than the caller's, NotFoundError for an unknown organization
        or project.
        """
        made = self._api_key(new, _organization_of_key(caller, new))
        secret = self._new_secret()
        async with transaction(self._database) as connection:
            callers = await key_of(caller, KeyStore(connection))
            if callers is not None:
                callers.require_may_create(new)
            await _require_place(AccountStore(connection), made)
            if not await KeyStore(connection).add_api_key(made, hash_key(secret)):
                raise RuntimeError("256 random bits came up twice")
            await self._log_key(connection, caller, "api_key.create", made)
        return made, secret

    async def update_api_key(self, caller: Caller, api_key_id: str, change: ApiKeyChange) -> ApiKey:
        """The key as it is since.

        Raises NotFoundError for one that is missing or not the caller's, ForbiddenError for limits that the caller may
        not change.
        """
        key_id = uuid_in_path("API key", api_key_id)
        async with transaction(self._database) as connection:
            store = KeyStore(connection)
            before = own_key(caller, key_id, await store.find_api_key(key_id, lock=True))
            callers = await key_of(caller, store)
            if callers is not None and change.changes_limit:
                callers.require_may_limit()
            after = change.applied_to(before, self._clock())
            if after == before:
                return before
            await store.change_api_key(after)
            await self._log_key(connection, caller, "api_key.update", after, before=before.settings)
        return after

    async def revoke_api_key(self, caller: Caller, api_key_id: str) -> ApiKey:
        """The key as ended, now or before. Raises NotFoundError for one that is missing or not the caller's."""
        key_id = uuid_in_path("API key", api_key_id)
        async with transaction(self._database) as connection:
            store = KeyStore(connection)
            before = own_key(caller, key_id, await store.find_api_key(key_id, lock=True))
            revoked = await store.revoke_api_key(key_id, self._clock())
            if revoked is None:
                return before
            await self._log_key(connection, caller, "api_key.revoke", revoked, before=before.settings)
        return revoked

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
        made = self._api_key(new, None)
        async with transaction(self._database) as connection:
            if await KeyStore(connection).add_api_key(made, hash_key(secret)):
                await self._log_key(connection, _STARTING_LEDGER, "api_key.create", made)

    # Own provider keys

    async def set_provider_key(self, caller: Caller, new: NewProviderKey) -> ProviderKey:
        """Raises NotFoundError for an unknown organization."""
        own_id = one_organization(caller, new.organization_id)
        made = ProviderKey(organization_id=own_id, provider=new.provider, update_time=self._clock())
        sealed_secret = seal(new.secret, self._provider_key_public, organization_id=str(own_id), provider=new.provider)
        async with transaction(self._database) as connection:
            store = KeyStore(connection)
            # One at a time, so that the log knows what each replaced.
            if await AccountStore(connection).find_organization(own_id, lock=True) is None:
                raise NotFoundError(f"organization {own_id}")
            before = await store.find_provider_key(own_id, new.provider)
            await store.put_provider_key(made, sealed_secret)
            await self._log.write(
                connection,
                caller,
                "provider_key.set",
                new.provider,
                organization_id=own_id,
                before=None if before is None else before.settings,
                after=made.settings,
            )
        return made

    async def delete_provider_key(self, caller: Caller, organization_id: str, provider: str) -> None:
        """Raises NotFoundError when the organization, which may be unknown, has none for this provider."""
        own_id = one_organization(caller, organization_id)
        name = name_in_path("provider key", provider)
        async with transaction(self._database) as connection:
            deleted = await KeyStore(connection).delete_provider_key(own_id, name)
            if deleted is None:
                raise NotFoundError(f"provider key {name}")
            await self._log.write(
                connection, caller, "provider_key.delete", name, organization_id=own_id, before=deleted.settings
            )

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
            spending_limit=new.spending_limit,
            rate_limit=new.rate_limit,
        )

    async def _log_key(
        self, connection: AsyncConnection, caller: Caller, action: str, key: ApiKey, *, before: Settings | None = None
    ) -> None:
        await self._log.write(
            connection,
            caller,
            action,
            str(key.api_key_id),
            organization_id=key.organization_id,
            before=before,
            after=key.settings,
        )


def _organization_of_key(caller: Caller, new: NewApiKey) -> UUID | None:
    """Whose the key will be. Raises ForbiddenError where it would reach further than the caller's."""
    if new.scope < caller.scope:
        scope = new.scope.name.lower()
        raise ForbiddenError(f"This key may not create keys of scope {scope}.", scope=scope)
    if new.scope is Scope.OPERATOR:
        return None
    return one_organization(caller, new.organization_id)


async def key_of(caller: Caller, store: KeyStore) -> ApiKey | None:
    """The caller's own key; None for our services, which have none."""
    return None if caller.api_key_id is None else await store.find_api_key(UUID(caller.api_key_id))


async def _require_place(store: AccountStore, key: ApiKey) -> None:
    """Raises NotFoundError unless the organization and the project that the key names exist to be called for."""
    if key.organization_id is None:
        return
    await store.require_organization(key.organization_id)
    if key.project_id is not None:
        project = await store.find_project(key.organization_id, key.project_id)
        if project is None or project.archive_time is not None:
            raise NotFoundError(f"project {key.project_id}")
