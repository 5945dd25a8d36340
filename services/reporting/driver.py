"""The driver beneath SQLAlchemy. A statement that is made once goes straight to it, which is half the work."""

from functools import lru_cache
from typing import Any

import psycopg
from psycopg.types.numeric import IntLoader
from sqlalchemy import Dialect, Select
from sqlalchemy.ext.asyncio import AsyncConnection

Driver = psycopg.AsyncConnection[tuple[Any, ...]]
# Executions after which the driver would prepare a statement that nobody asked it to.
_NEVER = 1_000_000_000


async def driver_of(connection: AsyncConnection) -> Driver:
    """Reads every numeric as a whole number, as all are that are summed. Others raise ValueError, so are cast to text.

    Prepares what it is told to and nothing else: a plan made for any days would lock every partition of detail.
    """
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise TypeError(f"expected a connection of psycopg, got {type(driver)}")
    driver.adapters.register_loader("numeric", IntLoader)
    driver.prepare_threshold = _NEVER
    return driver


@lru_cache(maxsize=512)
def compiled(statement: Select[Any], dialect: Dialect) -> tuple[bytes, dict[str, Any]]:
    """The text of a statement that is made once, and the values that are part of it.

    Those that it names come with each execution. Of one that is left out the driver complains.
    """
    made = statement.compile(dialect=dialect)
    constants = {name: parameter.value for parameter, name in made.bind_names.items() if not parameter.required}
    return str(made).encode(), constants
