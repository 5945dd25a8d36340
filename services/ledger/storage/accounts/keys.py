"""API keys and own provider keys in PostgreSQL. Works inside its caller's transaction."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.authentication import Scope
from services.ledger.accounts.call_settings import RateLimit
from services.ledger.accounts.keys import ApiKey, ProviderKey
from services.ledger.paging import PageRequest, TimeAndName
from services.ledger.storage.accounts.account_tables import api_key, provider_key
from services.ledger.storage.accounts.call_settings import RATE_LIMIT_NAMES
from services.ledger.storage.books.spending_limits import limit_from_row, limit_to_row

_API_KEY_COLUMNS = [column for column in api_key.columns if column is not api_key.c.key_hash]
_PROVIDER_KEY_COLUMNS = [provider_key.c.organization_id, provider_key.c.provider, provider_key.c.update_time]


class KeyStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    # API keys

    async def add_api_key(self, new: ApiKey, key_hash: bytes) -> bool:
        """False when the key is there already."""
        statement = insert_or(api_key).values(api_key_to_row(new) | {"key_hash": key_hash})
        statement = statement.on_conflict_do_nothing(index_elements=[api_key.c.key_hash])
        result = await self._connection.execute(statement.returning(api_key.c.api_key_id))
        return result.first() is not None

    async def find_api_key_by_hash(self, key_hash: bytes) -> ApiKey | None:
        return await self._find_api_key(api_key.c.key_hash == key_hash)

    async def find_api_key(self, api_key_id: UUID, *, lock: bool = False) -> ApiKey | None:
        """`lock` makes other changes of it wait until the transaction ends."""
        return await self._find_api_key(api_key.c.api_key_id == api_key_id, lock=lock)

    async def list_api_keys(
        self,
        page: PageRequest[UUID],
        *,
        organization_id: UUID | None,
        project_id: str | None,
        api_key_id: UUID | None,
    ) -> list[ApiKey]:
        """Those for which all that is given is so."""
        statement = select(*_API_KEY_COLUMNS).order_by(api_key.c.api_key_id.desc()).limit(page.row_count)
        if organization_id is not None:
            statement = statement.where(api_key.c.organization_id == organization_id)
        if project_id is not None:
            statement = statement.where(api_key.c.project_id == project_id)
        if api_key_id is not None:
            statement = statement.where(api_key.c.api_key_id == api_key_id)
        if page.after is not None:
            statement = statement.where(api_key.c.api_key_id < page.after)
        return [api_key_from_row(row) for row in (await self._connection.execute(statement)).mappings()]

    async def change_api_key(self, changed: ApiKey) -> None:
        """Must be locked. Changes what may change of a key that has not ended."""
        row = api_key_to_row(changed)
        names = ("display_name", "expire_time", "spending_limit_pico", "spending_period", *RATE_LIMIT_NAMES)
        statement = update(api_key).where(api_key.c.api_key_id == changed.api_key_id)
        await self._connection.execute(statement.values({name: row[name] for name in names}))

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

    async def _find_api_key(self, condition: ColumnElement[bool], *, lock: bool = False) -> ApiKey | None:
        statement = select(*_API_KEY_COLUMNS).where(condition)
        if lock:
            statement = statement.with_for_update(key_share=True)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else api_key_from_row(row)

    # Provider keys

    async def put_provider_key(self, new: ProviderKey, sealed_secret: bytes) -> None:
        """Replaces the organization's earlier key for this provider."""
        values = {"sealed_secret": sealed_secret, "update_time": new.update_time}
        statement = insert_or(provider_key).values(organization_id=new.organization_id, provider=new.provider, **values)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[provider_key.c.organization_id, provider_key.c.provider], set_=values
            )
        )

    async def find_provider_key(self, organization_id: UUID, provider: str) -> ProviderKey | None:
        statement = select(*_PROVIDER_KEY_COLUMNS).where(_provider_key_is(organization_id, provider))
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else ProviderKey(**row)

    async def list_provider_keys(self, organization_id: UUID, page: PageRequest[TimeAndName]) -> list[ProviderKey]:
        place = tuple_(provider_key.c.update_time, provider_key.c.provider)
        statement = select(*_PROVIDER_KEY_COLUMNS).where(provider_key.c.organization_id == organization_id)
        statement = statement.order_by(provider_key.c.update_time.desc(), provider_key.c.provider.desc())
        if page.after is not None:
            statement = statement.where(place < page.after)
        result = await self._connection.execute(statement.limit(page.row_count))
        return [ProviderKey(**row) for row in result.mappings()]

    async def delete_provider_key(self, organization_id: UUID, provider: str) -> ProviderKey | None:
        """What was there, or None when there was nothing."""
        statement = delete(provider_key).where(_provider_key_is(organization_id, provider))
        result = await self._connection.execute(statement.returning(*_PROVIDER_KEY_COLUMNS))
        row = result.mappings().one_or_none()
        return None if row is None else ProviderKey(**row)


def _provider_key_is(organization_id: UUID, provider: str) -> ColumnElement[bool]:
    return and_(provider_key.c.organization_id == organization_id, provider_key.c.provider == provider)


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
        **limit_to_row(key.spending_limit),
        **key.rate_limit.by_name(),
    }


def api_key_from_row(row: RowMapping) -> ApiKey:
    columns = dict(row)
    limit = limit_from_row(columns.pop("spending_limit_pico"), columns.pop("spending_period"))
    rate_limit = RateLimit(**{name: columns.pop(name) for name in RATE_LIMIT_NAMES})
    return ApiKey(**{**columns, "scope": Scope(row["scope"]), "spending_limit": limit, "rate_limit": rate_limit})
