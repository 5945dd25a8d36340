"""Books the end of credit at its moment. Every ledger does: whoever is first books it, and the others find it done."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from psycopg import Connection

from services.common.errors import UnavailableError
from services.ledger.storage.books.books import books_due, end_due
from services.ledger.storage.writer import DatabaseWriter

# Nothing waits for it: who reads a balance leaves out what has ended, and who books anything books the end first.
PASS_SECONDS = 1.0
BOOKS_AT_ONCE = 100

log = logging.getLogger("tollgate.ledger.credits")


class CreditEnder:
    """Lives as long as the service."""

    def __init__(self, writer: DatabaseWriter, *, clock: Callable[[], datetime]) -> None:
        self._writer = writer
        self._clock = clock

    async def follow(self) -> None:
        """Looks every second, for ever."""
        while True:
            try:
                await self.make_pass()
            except UnavailableError as error:
                log.warning("credit ends when the database is back: %s", error.message)
            await asyncio.sleep(PASS_SECONDS)

    async def make_pass(self) -> int:
        """Books what has ended by now; returns how many organizations had any."""
        now = self._clock()
        due = await self._writer.run(lambda connection: books_due(connection, now, BOOKS_AT_ONCE))
        for organization_id in due:
            await self._writer.run(lambda connection, one=organization_id: _end(connection, one, now))  # type: ignore[misc]
        return len(due)


def _end(connection: Connection, organization_id: str, now: datetime) -> None:
    with connection.transaction():
        end_due(connection, organization_id, now)
