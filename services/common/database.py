"""Opens PostgreSQL. The URL is `postgresql://…`, as psql takes it."""

import asyncio

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.common.settings import SettingError

POOL_SIZE = 10
CONNECT_SECONDS = 5


def engine_url(database_url: str, setting: str = "TOLLGATE_DATABASE_URL") -> URL:
    """The URL as SQLAlchemy wants it, with the driver we use. Never shows the password in an error."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingError(f"{setting} must look like postgresql://user@host/database")
    return url.set(drivername="postgresql+psycopg")


def open_database(
    database_url: str, *, statement_seconds: int = 30, setting: str = "TOLLGATE_DATABASE_URL"
) -> AsyncEngine:
    """An engine that connects when first used. Every statement has a deadline."""
    return create_async_engine(
        engine_url(database_url, setting),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": f"-c statement_timeout={statement_seconds}s -c timezone=UTC",
        },
    )


async def check_database(engine: AsyncEngine, setting: str = "TOLLGATE_DATABASE_URL") -> None:
    """Raises SettingError, in one line, when the database cannot be used."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS * 2), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OperationalError, TimeoutError) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines() or ["no answer in time"]
        raise SettingError(f"{setting}: cannot use {engine.url!r}: {reason[-1]}") from error
