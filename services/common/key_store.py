"""Finds keys in PostgreSQL, by hash, in the published view. Each lookup is fresh, so a revoked key ends at once."""

from sqlalchemy import LargeBinary, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller, Scope
from services.common.errors import UnavailableError

_FIND = text("""
    SELECT scope, organization_id::text, project_id, api_key_id::text, read_only
      FROM reporting.api_key
     WHERE key_hash = :key_hash AND revoke_time IS NULL AND (expire_time IS NULL OR expire_time > now())
""").bindparams(bindparam("key_hash", type_=LargeBinary))


class DatabaseKeyDirectory:
    """A `KeyDirectory` over `reporting.api_key`."""

    def __init__(self, engine: AsyncEngine) -> None:
        # One statement needs no transaction around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def find(self, key_hash: bytes) -> Caller | None:
        try:
            async with self._engine.connect() as connection:
                row = (await connection.execute(_FIND, {"key_hash": key_hash})).one_or_none()
        except (DBAPIError, PoolTimeoutError) as error:
            raise UnavailableError("Keys cannot be checked right now; try again.") from error
        if row is None:
            return None
        return Caller(
            scope=Scope(row.scope),
            organization_id=row.organization_id,
            project_id=row.project_id,
            api_key_id=row.api_key_id,
            read_only=row.read_only,
        )
