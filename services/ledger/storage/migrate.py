"""Brings the database to the newest schema: `python -m services.ledger.storage.migrate`.

Reads TOLLGATE_DATABASE_ADMIN_URL, whose user may create roles and schemas. Safe to repeat and to run at the same time
from several machines: one works, the others wait and find nothing left to do.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationInfo
from alembic.script import Script
from alembic.util import CommandError
from psycopg import OperationalError
from psycopg.errors import InsufficientPrivilege, RaiseException
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from services.common.database import CONNECT_SECONDS, engine_url
from services.common.settings import Environment, SettingError

ADMIN_URL = "TOLLGATE_DATABASE_ADMIN_URL"
MIGRATIONS = Path(__file__).parent / "migrations"
# Views that check the rights of their reader came with 15.
SERVER_VERSION_LEAST = 15
# Any number that no other program locks in this database: "tollgate" in ASCII.
LOCK = 0x746F6C6C67617465
# No connection, no right, or a migration's own words about what to put right first. Anything else is a bug.
FOR_THE_ADMINISTRATOR = (OperationalError, InsufficientPrivilege, RaiseException)

Progress = Callable[[str], None]


def migrate(database_url: str, progress: Progress) -> None:
    """Runs what has not run yet, with a line of `progress` for each step.

    Raises SettingError when the database cannot be used.
    """
    url = engine_url(database_url, ADMIN_URL)
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    try:
        with engine.connect() as connection:
            _require_server_version(connection)
            _lock(connection, progress)
            _upgrade(connection, progress)
    except DBAPIError as error:
        if not isinstance(error.orig, FOR_THE_ADMINISTRATOR):
            raise
        raise _cannot_use(url, error) from error
    except CommandError as error:
        raise SettingError(f"{ADMIN_URL}: {error}; is the database newer than this program?") from error


def _require_server_version(connection: Connection) -> None:
    version = connection.execute(text("SHOW server_version_num")).scalar_one()
    if int(version) // 10_000 < SERVER_VERSION_LEAST:
        raise SettingError(f"{ADMIN_URL}: PostgreSQL {SERVER_VERSION_LEAST} or newer is needed")


def _lock(connection: Connection, progress: Progress) -> None:
    """Waits for other migrations of this database. The lock ends with the connection."""
    key = {"key": LOCK}
    if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
        progress("Waiting for another migration of this database …")
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
    connection.commit()


def _upgrade(connection: Connection, progress: Progress) -> None:
    applied: list[str] = []

    def on_version_apply(*, step: MigrationInfo, **_: object) -> None:
        for script in step.up_revisions:
            if isinstance(script, Script):
                applied.append(script.revision)
                progress(f"Applied {script.revision}: {script.doc}")

    config = Config()
    # Alembic fills in %(…)s.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["on_version_apply"] = on_version_apply
    command.upgrade(config, "head")
    progress("The schema is up to date." if applied else "The schema was up to date.")


def _cannot_use(url: URL, error: DBAPIError) -> SettingError:
    lines = str(error.orig).strip().splitlines() or ["no answer"]
    return SettingError(f"{ADMIN_URL}: cannot use {url!r}: {lines[0]}")


def main() -> int:
    """Exits with 2 and one line on standard error when something is to be put right first."""
    try:
        migrate(Environment(os.environ).text(ADMIN_URL), lambda line: print(line, flush=True))
    except SettingError as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
