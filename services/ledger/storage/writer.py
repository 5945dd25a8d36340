"""Connections that write, each in a thread or a process of its own.

What holds up its caller does not hold up the event loop, and one connection cannot deadlock with itself.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg import Connection, errors
from sqlalchemy.engine import make_url

from services.common.database import CONNECT_SECONDS
from services.common.errors import UnavailableError

# A deadlock or a lost connection is over in moments, or it is an outage, which the caller waits out better than we do.
TRIES = 5
STATEMENT_SECONDS = 30
_AGAIN = (psycopg.OperationalError, psycopg.InterfaceError, errors.SerializationFailure, errors.DeadlockDetected)

log = logging.getLogger("tollgate.ledger.writer")
T = TypeVar("T")


class DatabaseWriter:
    """Runs transactions one after the other, in a thread. Lives from the start of the service to `close`."""

    def __init__(self, database_url: str, prepare_session: Callable[[Connection], None] | None = None) -> None:
        self._connection = WritingConnection(database_url, prepare_session)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    async def run(self, work: Callable[[Connection], T]) -> T:
        """`WritingConnection.run`, for the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._connection.run, work)

    def close(self) -> None:
        """Finishes what was begun."""
        self._executor.shutdown()
        self._connection.close()


class WritingConnection:
    """Runs transactions, and holds its caller up meanwhile. Connects when it is first needed."""

    def __init__(self, database_url: str, prepare_session: Callable[[Connection], None] | None = None) -> None:
        self._conninfo = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._prepare_session = prepare_session
        self._connection: Connection | None = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Does the work, which opens its own transactions, and does it again where the database asks for that.

        Raises UnavailableError when it keeps failing. The work may have been committed by a try whose answer was lost,
        so it must recognise its own traces.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                return work(self._connected())
            except _AGAIN as error:
                log.warning("transaction failed", extra={"error": str(error).strip(), "tries_left": tries_left})
                if not isinstance(error, (errors.SerializationFailure, errors.DeadlockDetected)):
                    self.close()
                cause = error
        raise UnavailableError("The ledger's database cannot be used right now; try again.") from cause

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = psycopg.connect(
                self._conninfo,
                autocommit=True,
                prepare_threshold=0,
                connect_timeout=CONNECT_SECONDS,
                options=f"-c statement_timeout={STATEMENT_SECONDS}s -c timezone=UTC",
            )
            if self._prepare_session is not None:
                self._prepare_session(connection)
            self._connection = connection
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
