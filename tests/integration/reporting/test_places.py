"""A question about calls touches the partitions that can hold them and no others, however many there are."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import open_database
from services.ledger.retention.retention import Place, retention_class
from services.ledger.storage.partitions import Partitions, of_detail, of_payloads
from services.reporting.figures_query import FiguresSource, Statement
from services.reporting.periods import timeline_for
from services.reporting.reader import Reader, Snapshot
from services.reporting.request_filter import RequestFilter
from services.reporting.request_query import Listing
from services.reporting.view import View
from tests.conftest import Database
from tests.contract.reporting.books import NOW, Books, Customer, open_books

DAY = timedelta(days=1)
CLASSES = (3, 30, 90)
HISTORY_DAYS = 60


@pytest.fixture(scope="module")
def books(database: Database) -> Iterator[Books]:
    """Among places for two months of three classes."""
    places = [Place(one, (NOW - number * DAY).date()) for one in CLASSES for number in range(HISTORY_DAYS)]
    with psycopg.connect(database.ledger_url, autocommit=True) as connection:
        Partitions().ensure(
            connection, [partition(place) for place in places for partition in (of_detail, of_payloads)]
        )
    with open_books(database) as opened:
        yield opened


@pytest.fixture(scope="module")
async def reader(database: Database) -> AsyncIterator[Reader]:
    engine: AsyncEngine = open_database(database.reporting_url)
    yield Reader(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
def free(books: Books) -> Customer:
    return books.customer(retention_days=3)


async def partitions_touched(snapshot: Snapshot, parent: str = "usage_record") -> int:
    """How many partitions the snapshot has locked, which it does with all that a plan is made for."""
    statement = text("""
        SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
         WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r' AND relname LIKE :parent || '%'
    """).bindparams(parent=parent)
    ((count,),) = await snapshot.rows(Statement(statement))  # type: ignore[arg-type]
    return int(count)


def a_view(customer: Customer | None) -> View:
    organization_id = None if customer is None else UUID(customer.organization_id)
    return View(organization_id=organization_id, project_id=None, api_key_id=None)


async def test_a_list_touches_the_days_of_its_own_class(reader: Reader, books: Books, free: Customer) -> None:
    call = free.call()
    books.record(call)
    calls = RequestFilter(view=a_view(free))

    for _ in range(8):  # more often than a statement is planned anew for its parameters
        async with reader.snapshot(UUID(free.organization_id)) as snapshot:
            places = await snapshot.places(await snapshot.retention(NOW))
            page = await snapshot.request_page(Listing(calls, places, NOW - 3 * DAY), None, 10)
            touched = await partitions_touched(snapshot)

        assert len(page) == 1
        assert touched == 4


async def test_one_call_touches_no_more_than_a_list_and_its_parts_one_partition(
    reader: Reader, books: Books, free: Customer
) -> None:
    call = free.call()
    books.record(call)

    async with reader.snapshot(UUID(free.organization_id)) as snapshot:
        places = await snapshot.places(await snapshot.retention(NOW))
        found = await snapshot.request(a_view(free), places, NOW - 3 * DAY, UUID(call.request_id))
        touched, payloads_touched = await partitions_touched(snapshot), await partitions_touched(snapshot, "payload")

    assert found is not None
    assert len(found.lines) == 2
    assert (touched, payloads_touched) == (4, 1)


@pytest.mark.parametrize("who", ["one", "all"])
async def test_figures_of_a_zone_off_the_hour_touch_two_days_of_detail(
    reader: Reader, free: Customer, who: str
) -> None:
    customer = free if who == "one" else None
    timeline = timeline_for(days="1", from_date="", to_date="", timezone="Asia/Kolkata", granularity="", as_of=NOW)
    view = a_view(customer)
    async with reader.snapshot(view.organization_id) as snapshot:
        retention = await snapshot.retention(NOW)
        places = await snapshot.places(retention)
        source = FiguresSource(
            view=view, timeline=timeline, as_of=NOW, retention=retention if customer else None, places=places
        )
        await snapshot.totals(source)
        touched = await partitions_touched(snapshot)

    assert 0 < touched <= (3 if customer else 3 * len(CLASSES) + 2)


async def test_while_a_change_of_plan_is_carried_out_calls_are_found_in_any_class(reader: Reader, books: Books) -> None:
    customer = books.customer(retention_days=3)
    call = customer.call()
    books.record(call)
    books.change_retention(customer.organization_id, 90, NOW)

    async with reader.snapshot(UUID(customer.organization_id)) as snapshot:
        places = await snapshot.places(await snapshot.retention(NOW))
        found = await snapshot.request(a_view(customer), places, NOW - 3 * DAY, UUID(call.request_id))

    assert set(places.classes) >= set(CLASSES)
    assert found is not None


async def test_the_database_and_the_ledger_agree_on_classes(database: Database) -> None:
    with psycopg.connect(database.admin_url) as connection:
        rows = connection.execute(
            "SELECT days, ledger.retention_class(days) FROM generate_series(1, 365) days"
        ).fetchall()

    assert rows == [(days, retention_class(days)) for days in range(1, 366)]
