import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.common.authentication import hash_key
from services.common.database import engine_url, open_database
from services.common.errors import UnavailableError
from services.common.key_store import DatabaseKeyDirectory
from tests.conftest import Database


async def test_a_key_that_cannot_be_checked_because_the_database_is_away_is_not_called_invalid() -> None:
    engine = open_database("postgresql://nobody@127.0.0.1:1/tollgate")

    with pytest.raises(UnavailableError):
        await DatabaseKeyDirectory(engine).find(hash_key("tg_any"))
    await engine.dispose()


async def test_a_key_that_cannot_be_checked_because_all_connections_are_busy_is_not_called_invalid(
    database: Database,
) -> None:
    engine = create_async_engine(engine_url(database.ledger_url), pool_size=1, max_overflow=0, pool_timeout=0.1)

    async with engine.connect():
        with pytest.raises(UnavailableError):
            await DatabaseKeyDirectory(engine).find(hash_key("tg_any"))
    await engine.dispose()
