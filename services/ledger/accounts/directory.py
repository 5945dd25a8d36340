"""What the bearer of a key may do. Asked by the router before it lets a model call through."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import InvalidApiKeyError, NotFoundError
from services.ledger.accounts.accounts import ProjectMode, require_name
from services.ledger.accounts.call_settings import AS_CONFIGURED, ProjectSettings
from services.ledger.accounts.keys import ApiKey
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.accounts.keys import KeyStore
from services.ledger.storage.transactions import transaction

# Whether an organization has credit left at a moment, read in the transaction of the connection.
CreditAvailable = Callable[[AsyncConnection, UUID, datetime], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A key in force, and what model calls with it are made for."""

    api_key: ApiKey
    # The key's own, else the one that was named. None when there is neither.
    project_id: str | None = None
    # None without a project.
    project_mode: ProjectMode | None = None
    call_settings: ProjectSettings = AS_CONFIGURED
    payload_retained: bool = False
    # Those that the project's mode uses, by provider.
    sealed_secrets: Mapping[str, bytes] = field(default_factory=dict)
    credit_available: bool = False


class Directory:
    """Finds bearers. Every answer is fresh, so a change counts from the moment it is committed."""

    def __init__(
        self, database: AsyncEngine, credit_available: CreditAvailable, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._credit_available = credit_available
        self._clock = clock

    async def resolve(self, key_hash: bytes, project_named: str) -> Bearer:
        """The bearer of the key with this hash, calling for the project they named, or for none when it is empty.

        Raises InvalidApiKeyError unless the key is in force, and NotFoundError for a project that does not exist or is
        archived: a call that would land on nobody's bill is a slip that its sender wants to hear of.
        """
        async with transaction(self._database) as connection:
            key = await KeyStore(connection).find_api_key_by_hash(key_hash)
            if key is None or not key.in_force(self._clock()):
                raise InvalidApiKeyError
            if key.organization_id is None:
                return Bearer(api_key=key)
            project_id = _project_of(key, project_named)
            standing = await AccountStore(connection).standing(key.organization_id, project_id)
            if project_id is not None and standing.project_mode is None:
                raise NotFoundError(f"project {project_id}")
            return Bearer(
                api_key=key,
                project_id=project_id,
                project_mode=standing.project_mode,
                call_settings=standing.call_settings,
                payload_retained=standing.payload_retained,
                sealed_secrets=standing.sealed_secrets,
                credit_available=await self._credit_available(connection, key.organization_id, self._clock()),
            )


def _project_of(key: ApiKey, named: str) -> str | None:
    if key.project_id is not None:
        return key.project_id
    if not named:
        return None
    require_name("project_id", named)
    return named
