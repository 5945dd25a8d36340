"""Real PostgreSQL for whoever asks: one server per test process, one migrated template, a copy for each module."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from development.postgres import EmbeddedPostgres

# The server is started by a fork, as another user. Where a test before it used gRPC, what that does before the exec may
# crash there. Read when gRPC is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

TEMPLATE = "tollgate_template"
# How fast a shared machine is says nothing about a rule.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database, as its three users see it. Roles are shared by all databases of the server."""

    admin_url: str
    ledger_url: str
    reporting_url: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    directory = Path(tempfile.mkdtemp(prefix="tollgate-"))
    directory.chmod(0o755)  # as root, the server runs as another user
    server = EmbeddedPostgres(directory / "postgres")
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    postgres.create_database(TEMPLATE)
    environment = os.environ | {"TOLLGATE_DATABASE_ADMIN_URL": postgres.url(TEMPLATE)}
    subprocess.run(
        [sys.executable, "-m", "services.ledger.storage.migrate"], env=environment, check=True, capture_output=True
    )
    return TEMPLATE


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres, migrated_template: str) -> Database:
    """A migrated, empty database of this module's own."""
    name = f"tollgate_{next(_numbers)}"
    postgres.create_database(name, template=migrated_template)
    return Database(
        admin_url=postgres.url(name),
        ledger_url=postgres.url(name, "tollgate_ledger"),
        reporting_url=postgres.url(name, "tollgate_reporting"),
    )


@pytest.fixture(scope="module")
def database_url(database: Database) -> str:
    """The same database, as its administrator."""
    return database.admin_url
