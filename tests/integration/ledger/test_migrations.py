import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import count

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine

from development.postgres import EmbeddedPostgres
from services.common.database import engine_url
from services.common.settings import SettingError
from services.ledger.storage.migrate import MIGRATIONS, migrate
from tests.conftest import Database

ACME, GLOBEX = "0199a000-0000-7000-8000-000000000001", "0199a000-0000-7000-8000-000000000002"
_numbers = count(1)


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres) -> str:
    name = f"tollgate_empty_{next(_numbers)}"
    postgres.create_database(name)
    return postgres.url(name)


def start_migration(url: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TOLLGATE_DATABASE_ADMIN_URL": url}
    command = [sys.executable, "-m", "services.ledger.storage.migrate"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def upgrade(url: str, revision: str) -> None:
    """Brings the database to a schema of the past."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["on_version_apply"] = lambda **_: None
    engine = create_engine(engine_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def run_migration(url: str) -> tuple[int, str, str]:
    process = start_migration(url)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def test_a_second_migration_finds_nothing_left_to_do(empty_url: str) -> None:
    first: list[str] = []
    second: list[str] = []
    migrate(empty_url, first.append)
    migrate(empty_url, second.append)

    assert first[0].startswith("Applied 0001: ")
    assert first[-1] == "The schema is up to date."
    assert second == ["The schema was up to date."]


def test_organizations_from_before_plans_could_change_have_had_theirs_from_the_start(empty_url: str) -> None:
    upgrade(empty_url, "0003")
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            "INSERT INTO ledger.organization VALUES (%s, 'Acme', 3, 200, false, '2026-01-01T00:00:00Z')", [ACME]
        )

    migrate(empty_url, lambda line: None)

    with psycopg.connect(empty_url) as connection:
        rows = connection.execute(
            "SELECT organization_id::text, valid_from, plan, retention_days FROM ledger.organization_plan"
        ).fetchall()
    assert rows == [(ACME, datetime(2026, 1, 1, tzinfo=UTC), 3, 200)]


def test_detail_from_before_is_kept_by_days_and_counted_in_totals(empty_url: str) -> None:
    upgrade(empty_url, "0003")
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            "INSERT INTO ledger.organization VALUES (%s, 'Acme', 3, 200, false, '2026-01-01T00:00:00Z')", [ACME]
        )
        # By its plan, and by the day of its id.
        connection.execute("""
            CREATE TABLE ledger.usage_record_enterprise_20260105 PARTITION OF ledger.usage_record
               FOR VALUES FROM (3, '2026-01-05') TO (3, '2026-01-06')
        """)
        connection.execute(
            """
            INSERT INTO ledger.usage_record
                   (retention_class, request_day, organization_id, request_id, api_key_id, batch_id, start_time,
                    endpoint, outcome, funding, usage_source, status, streamed, cache_hit, payload_retained, unpriced,
                    latency_ms, saved_pico, charged_pico, cost_pico, price_version_id, project_id, workflow,
                    requested_model, model, provider, error_type, service_tier, flags, discount, metadata, attempts,
                    line, line_quantity, line_unit_price, line_discount, line_cost_pico, line_list_cost_pico,
                    line_charged)
            VALUES (3, '2026-01-05', %s, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
                    '2026-01-04T23:59:59Z', 1, 1, 1, 1, 200, false, false, true, false, 9, 2, 17, 17, 5, 'web', '',
                    'gpt-4o', 'gpt-4o', 'openai', '', '', '{}', 0.2, '{}', '[]',
                    '{1,13}', '{10,10}', '{1,1}', '{0.2,0}', '{8,9}', '{10,9}', '{true,true}')
            """,
            [ACME],
        )
        connection.execute(
            """
            INSERT INTO ledger.usage_hour
            SELECT %s, '2026-01-04T23:00:00Z', 'web', gen_random_uuid(), 'gpt-4o', 'openai', 1, '',
                   1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 17, 2, 17, 9
            """,
            [ACME],
        )

    migrate(empty_url, lambda line: None)

    with psycopg.connect(empty_url) as connection:
        placed = connection.execute("SELECT tableoid::regclass::text, request_day FROM ledger.usage_record").fetchall()
        records = connection.execute("TABLE ledger.record_day").fetchall()
        money = connection.execute(
            "SELECT day, line, charged, price_version_id, list_cost_pico, cost_pico FROM ledger.money_day ORDER BY line"
        ).fetchall()
        owner = connection.execute(
            "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'usage_record_200_20260104'"
        ).fetchone()
    day = date(2026, 1, 4)
    assert placed == [("ledger.usage_record_200_20260104", day)]
    assert [(str(one[0]), *one[1:]) for one in records] == [(ACME, day, 1, 0, 17, 2, 17)]
    assert money == [(day, 1, True, 5, 10, 8), (day, 13, True, 0, 9, 9)]
    assert owner == ("tollgate_ledger",)


def test_counts_of_durations_from_before_they_were_numbers_are_told_as_they_were(empty_url: str) -> None:
    upgrade(empty_url, "0015")
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            """
            INSERT INTO ledger.latency_day
            VALUES (%s, '2026-01-05', 'web', 'openai', 'gpt-4o', '', '[0:3]={7,NULL,0,2147483647}', '{}')
            """,
            [ACME],
        )

    migrate(empty_url, lambda line: None)

    with psycopg.connect(empty_url) as connection:
        told = "SELECT latency_counts[0], latency_counts[3], latency_counts, time_to_first_token_counts"
        row = connection.execute(f"{told} FROM reporting.latency_day".encode()).fetchone()
        histograms = connection.execute("SELECT latency_histogram FROM ledger.latency_day").fetchone()
    assert row == (7, 2**31 - 1, [7, None, None, 2**31 - 1], [])
    assert histograms == (7 + (2**31 - 1) * 10**36,)


def test_migrations_started_together_all_succeed_and_each_step_runs_once(empty_url: str) -> None:
    started = [start_migration(empty_url) for _ in range(3)]
    ended = [(process.communicate(timeout=90), process.returncode) for process in started]

    assert [code for _, code in ended] == [0, 0, 0], ended
    assert sum(out.count("Applied 0001: ") for (out, _), _ in ended) == 1


def test_an_administrator_who_is_no_superuser_can_migrate(postgres: EmbeddedPostgres, migrated_template: str) -> None:
    name = f"tollgate_managed_{next(_numbers)}"
    postgres.create_database(name)
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE managed LOGIN CREATEROLE")
        # The roles exist already, made by somebody else; what a platform hands over is the right to give them out.
        connection.execute("GRANT tollgate_ledger, tollgate_reporting, tollgate_reporting_operator TO managed")
        connection.execute(f"ALTER DATABASE {name} OWNER TO managed")

    migrate(postgres.url(name, "managed"), lambda line: None)

    with psycopg.connect(postgres.url(name, "tollgate_ledger")) as connection:
        assert connection.execute("SELECT count(*) FROM ledger.organization").fetchone() == (0,)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="not set"),
        pytest.param("mysql://root@127.0.0.1/tollgate", id="another database"),
        pytest.param("not a url", id="not a URL"),
        pytest.param("postgresql://nobody:hunter2@127.0.0.1:1/tollgate", id="nobody listens"),
    ],
)
def test_a_broken_url_is_one_line_that_names_the_setting_and_no_password(url: str) -> None:
    code, out, error = run_migration(url)

    assert code == 2
    assert out == ""
    assert error.startswith("migrate: TOLLGATE_DATABASE_ADMIN_URL")
    assert error.count("\n") == 1
    assert "hunter2" not in error


def test_a_user_who_may_not_migrate_is_told_in_one_line(postgres: EmbeddedPostgres, empty_url: str) -> None:
    migrate(empty_url, lambda line: None)
    database = empty_url.partition("@/")[2].partition("?")[0]

    with pytest.raises(SettingError, match="permission denied"):
        migrate(postgres.url(database, "tollgate_reporting"), lambda line: None)


def test_a_reading_role_that_would_inherit_the_operators_sight_is_refused(
    postgres: EmbeddedPostgres, migrated_template: str, empty_url: str
) -> None:
    membership = "tollgate_reporting_operator TO tollgate_reporting"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"GRANT {membership} WITH INHERIT TRUE".encode())
        try:
            with pytest.raises(SettingError, match="tollgate_reporting must be NOINHERIT"):
                migrate(empty_url, lambda line: None)
        finally:
            connection.execute(f"GRANT {membership} WITH INHERIT FALSE".encode())


def test_a_database_of_a_newer_program_is_left_alone(empty_url: str) -> None:
    migrate(empty_url, lambda line: None)
    with psycopg.connect(empty_url) as connection:
        connection.execute("UPDATE ledger.schema_version SET version_num = '9999'")

    with pytest.raises(SettingError, match="is the database newer than this program"):
        migrate(empty_url, lambda line: None)


@pytest.fixture(scope="module")
def two_organizations(database: Database) -> Database:
    with psycopg.connect(database.ledger_url) as connection:
        for organization_id in (ACME, GLOBEX):
            connection.execute(
                "INSERT INTO ledger.organization VALUES (%s, 'An organization', 1, 3, false, now())", [organization_id]
            )
            connection.execute("INSERT INTO ledger.project VALUES (%s, 'web', 1, now())", [organization_id])
            connection.execute(
                "INSERT INTO ledger.audit_log VALUES (%s, gen_random_uuid(), now(), 2, NULL, 'a.b', 'x', '{}')",
                [organization_id],
            )
    return database


@pytest.fixture
def reader(two_organizations: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(two_organizations.reporting_url) as connection:
        yield connection
        connection.rollback()


def organizations_seen(reader: psycopg.Connection, view: str) -> set[str]:
    return {str(row[0]) for row in reader.execute(f"SELECT organization_id FROM reporting.{view}".encode())}


@pytest.mark.parametrize("view", ["organization", "project"])
def test_a_reader_sees_nothing_before_it_says_for_whom(reader: psycopg.Connection, view: str) -> None:
    assert organizations_seen(reader, view) == set()


@pytest.mark.parametrize("view", ["organization", "project"])
def test_a_reader_sees_the_organization_it_has_set_and_no_other(reader: psycopg.Connection, view: str) -> None:
    reader.execute(f"SET LOCAL tollgate.organization_id = '{ACME}'".encode())

    assert organizations_seen(reader, view) == {ACME}


def test_what_a_reader_has_set_ends_with_its_transaction(reader: psycopg.Connection) -> None:
    reader.execute(f"SET LOCAL tollgate.organization_id = '{ACME}'".encode())
    reader.commit()

    assert organizations_seen(reader, "project") == set()


@pytest.mark.parametrize("view", ["organization", "project"])
def test_the_operator_role_sees_every_organization(reader: psycopg.Connection, view: str) -> None:
    reader.execute("SET LOCAL ROLE tollgate_reporting_operator")

    assert organizations_seen(reader, view) == {ACME, GLOBEX}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT sealed_secret FROM ledger.provider_key",
        "SELECT subject FROM ledger.audit_log",
        "SELECT subject FROM ledger.operator_audit_log",
        "UPDATE ledger.organization SET plan = 3",
        "UPDATE ledger.api_key SET revoke_time = NULL",
        "DELETE FROM reporting.project",
        "CREATE TABLE reporting.mine (n INT)",
    ],
)
@pytest.mark.parametrize("role", ["tollgate_reporting", "tollgate_reporting_operator"])
def test_a_reader_may_not(reader: psycopg.Connection, role: str, statement: str) -> None:
    reader.execute(f"SET LOCAL ROLE {role}".encode())

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE ledger.audit_log SET subject = 'y'", id="rewrite the audit log"),
        pytest.param("DELETE FROM ledger.audit_log", id="shorten the audit log"),
        pytest.param("TRUNCATE ledger.operator_audit_log", id="empty the operators' audit log"),
        pytest.param("UPDATE ledger.api_key SET scope = 2, organization_id = NULL", id="widen a key"),
        pytest.param("UPDATE ledger.api_key SET read_only = false", id="let a reading key write"),
        pytest.param("UPDATE ledger.organization_plan SET plan = 3", id="rewrite which plan held"),
        pytest.param("DELETE FROM ledger.organization_plan", id="forget which plan held"),
        pytest.param("DELETE FROM ledger.api_key", id="forget a key"),
        pytest.param("ALTER TABLE ledger.audit_log DISABLE ROW LEVEL SECURITY", id="change a table it does not own"),
    ],
)
def test_the_ledger_itself_may_not(two_organizations: Database, statement: str) -> None:
    with (
        psycopg.connect(two_organizations.ledger_url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
