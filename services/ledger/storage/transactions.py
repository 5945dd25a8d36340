"""One transaction, and what it means when the database cannot hold it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import UnavailableError


@asynccontextmanager
async def transaction(database: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Commits at the end, or leaves no trace.

    Raises UnavailableError when the database is away, too busy or gave up; doing the whole again may then succeed.
    """
    try:
        async with database.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise UnavailableError("The ledger's database cannot be used right now; try again.") from error


@asynccontextmanager
async def snapshot(database: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Everything as it was at one moment, for reading only. Raises UnavailableError like `transaction`."""
    try:
        async with database.connect() as opened:
            connection = await opened.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise UnavailableError("The ledger's database cannot be used right now; try again.") from error
