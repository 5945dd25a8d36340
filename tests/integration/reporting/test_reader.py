"""What the database itself keeps the reader from, and what the reader says when the database does not answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import bindparam, column, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import open_database
from services.common.errors import UnavailableError
from services.reporting.driver import compiled, driver_of
from services.reporting.figures_query import FiguresSource
from services.reporting.periods import timeline_for
from services.reporting.reader import Reader, Snapshot
from services.reporting.summaries import FiguresRow
from services.reporting.view import View
from tests.conftest import Database
from tests.contract.reporting.books import NOW, Books, Customer, open_books

VIEWS = (
    "organization",
    "project",
    "usage_hour",
    "usage_day",
    "latency_day",
    "failure_day",
    "usage_record",
    "cost_line",
)


@pytest.fixture(scope="module")
def books(database: Database) -> Iterator[Books]:
    with open_books(database) as opened:
        yield opened


@pytest.fixture(scope="module")
def acme(books: Books) -> Customer:
    customer = books.customer()
    books.record(customer.call())
    return customer


@pytest.fixture(scope="module")
def globex(books: Books) -> Customer:
    customer = books.customer()
    books.record(customer.call(), customer.call())
    return customer


@pytest.fixture(scope="module")
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    opened = open_database(database.reporting_url, statement_seconds=1)
    yield opened
    await opened.dispose()


@pytest.fixture
def reader(engine: AsyncEngine) -> Reader:
    return Reader(engine)


async def figures_of_today(snapshot: Snapshot, organization_id: UUID | None, timezone: str = "UTC") -> list[FiguresRow]:
    timeline = timeline_for(days="1", from_date="", to_date="", timezone=timezone, granularity="", as_of=NOW)
    view = View(organization_id=organization_id, project_id=None, api_key_id=None)
    retention = await snapshot.retention(NOW)
    places = await snapshot.places(retention)
    source = FiguresSource(view=view, timeline=timeline, as_of=NOW, retention=retention, places=places)
    return await snapshot.totals(source)


@pytest.mark.parametrize("view", VIEWS)
async def test_without_an_organization_the_database_shows_no_row(
    engine: AsyncEngine, acme: Customer, view: str
) -> None:
    async with engine.connect() as connection:
        rows = (await connection.execute(text(f"SELECT count(*) FROM reporting.{view}"))).scalar_one()

    assert rows == 0


async def test_a_query_that_forgets_its_organization_still_sees_one_only(
    reader: Reader, acme: Customer, globex: Customer
) -> None:
    for timezone in ("UTC", "Asia/Kolkata"):
        async with reader.snapshot(UUID(acme.organization_id)) as snapshot:
            rows = await figures_of_today(snapshot, organization_id=None, timezone=timezone)

        assert sum(row.figures.request_count for row in rows) == 1


async def test_a_plan_made_for_one_organization_shows_another_its_own_rows(
    reader: Reader, engine: AsyncEngine, acme: Customer, globex: Customer
) -> None:
    for _ in range(8):  # after five of its own, the database takes a plan for all values
        for customer, count in ((acme, 1), (globex, 2)):
            async with reader.snapshot(UUID(customer.organization_id)) as snapshot:
                rows = await figures_of_today(snapshot, organization_id=None)
            assert sum(row.figures.request_count for row in rows) == count

    async with engine.connect() as connection:
        plans = (await connection.execute(text("SELECT max(generic_plans) FROM pg_prepared_statements"))).scalar_one()
    assert plans > 0


async def test_statements_of_detail_are_not_prepared(reader: Reader, engine: AsyncEngine, acme: Customer) -> None:
    for _ in range(8):
        async with reader.snapshot(UUID(acme.organization_id)) as snapshot:
            await figures_of_today(snapshot, UUID(acme.organization_id), timezone="Asia/Kolkata")

    async with engine.connect() as connection:
        statements = (await connection.execute(text("SELECT statement FROM pg_prepared_statements"))).scalars().all()
    assert statements
    assert not [statement for statement in statements if "usage_record" in statement]


async def test_sums_are_exact_beyond_what_a_machine_word_holds(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        row = await (await driver.execute("SELECT 123456789012345678901234567890::numeric, -1::numeric")).fetchone()
        fraction = await driver.execute("SELECT 0.5::numeric")

        assert row == (123456789012345678901234567890, -1)
        with pytest.raises(ValueError, match=r"0\.5"):
            await fraction.fetchone()


async def test_a_prepared_statement_is_not_run_without_one_of_its_values(engine: AsyncEngine) -> None:
    named = select(table("project", column("project_id"), schema="reporting")).where(
        column("project_id") == bindparam("project_id"), column("project_id") != "web"
    )
    async with engine.connect() as connection:
        query, constants = compiled(named, connection.dialect)
        driver = await driver_of(connection)
        with pytest.raises(psycopg.ProgrammingError, match="project_id"):
            await driver.execute(query, constants)


async def test_what_one_transaction_may_see_is_not_left_to_the_next(
    reader: Reader, engine: AsyncEngine, acme: Customer
) -> None:
    for organization_id in (None, UUID(acme.organization_id)):
        async with reader.snapshot(organization_id):
            pass
        async with engine.connect() as connection:
            rows = (await connection.execute(text("SELECT count(*) FROM reporting.usage_record"))).scalar_one()
        assert rows == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger.usage_record",
        "UPDATE ledger.organization SET retention_days = 365",
        "INSERT INTO ledger.usage_hour DEFAULT VALUES",
        "CREATE TABLE reporting.mine (x int)",
        "TRUNCATE ledger.usage_hour",
    ],
)
def test_the_role_may_select_and_nothing_else(database: Database, statement: str) -> None:
    with psycopg.connect(database.reporting_url) as connection:
        for role in ("tollgate_reporting", "tollgate_reporting_operator"):
            connection.execute(f"SET LOCAL ROLE {role}")
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()


async def test_all_that_is_read_in_a_snapshot_is_of_one_moment(reader: Reader, books: Books) -> None:
    customer = books.customer()
    organization_id = UUID(customer.organization_id)
    async with reader.snapshot(organization_id) as snapshot:
        before = await figures_of_today(snapshot, organization_id)
        books.record(customer.call(at=NOW - timedelta(minutes=1)))
        after = await figures_of_today(snapshot, organization_id)

    assert before == after == []


async def test_a_read_that_takes_too_long_says_what_to_do(reader: Reader, database: Database, acme: Customer) -> None:
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("LOCK TABLE ledger.organization IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UnavailableError, match="took too long; ask for a shorter period"):
            async with reader.snapshot(UUID(acme.organization_id)) as snapshot:
                await snapshot.retention(NOW)


async def test_a_database_that_is_away_is_said_to_be() -> None:
    engine = open_database("postgresql://tollgate_reporting@127.0.0.1:1/tollgate")
    try:
        with pytest.raises(UnavailableError, match="cannot be read right now"):
            async with Reader(engine).snapshot(None):
                pass
    finally:
        await engine.dispose()


async def test_a_connection_that_breaks_is_replaced(reader: Reader, database: Database, acme: Customer) -> None:
    organization_id = UUID(acme.organization_id)
    async with reader.snapshot(organization_id):
        pass
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tollgate_reporting'")
    await asyncio.sleep(0.1)

    async with reader.snapshot(organization_id) as snapshot:
        retention = await snapshot.retention(NOW)

    assert retention is not None
    assert retention.days == 90
