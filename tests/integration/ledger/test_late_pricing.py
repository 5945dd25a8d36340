import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from services.common.database import open_database
from services.ledger.books.verifying import BookVerifier
from services.ledger.prices.price_book import PriceBook, PriceVersion
from services.ledger.pricing import ImagePrice, Prices, Rates, Unit
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.late_pricing import LatePricer
from tests.conftest import Database
from tests.usage_builders import (
    COST_PICO,
    LONG_AGO,
    PRICES,
    Recorder,
    a_price_book,
    a_record,
    a_recorder,
    a_request,
    add_organization,
    books_of,
    now_in_utc,
)

UNKNOWN = "nobody-priced-this"
PRICED_NOW = PriceBook([PriceVersion(7, "openai", UNKNOWN, LONG_AGO, "operator", PRICES)], [])


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database, a_price_book()) as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


@contextmanager
def a_pricer(database: Database, book: PriceBook = PRICED_NOW) -> Iterator[LatePricer]:
    writer = DatabaseWriter(database.ledger_url, prepare_session)
    yield LatePricer(writer, lambda: book, clock=now_in_utc)
    writer.close()


async def agrees(database: Database, organization_id: str) -> bool:
    engine = open_database(database.ledger_url)
    try:
        findings = await BookVerifier(engine, clock=now_in_utc).verify(None)
    finally:
        await engine.dispose()
    assert findings.differences == []
    return books_of(database, organization_id).agree


def one(database: Database, query: str, organization_id: str) -> Any:
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query.encode(), (organization_id,)).fetchone()


async def test_a_call_is_priced_and_charged_once_a_price_for_it_is_published(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id, model=UNKNOWN, payload_retained=True)))
    storage_pico = 12_000_000
    before = books_of(database, organization_id)
    with a_pricer(database) as pricer:
        counts = [await pricer.make_pass(), await pricer.make_pass()]

    after = books_of(database, organization_id)
    assert counts == [1, 0]
    assert before.records_charged == storage_pico
    assert after.records_charged == COST_PICO + storage_pico
    assert list(after.sequences) == [1, 2]
    query = "SELECT unpriced, price_version_id, line, flags FROM ledger.usage_record WHERE organization_id = %s"
    assert one(database, query, organization_id) == (False, 7, [1, 2, 6, 13], [])
    query = "SELECT record_count, unpriced_count, charged_pico FROM ledger.record_day WHERE organization_id = %s"
    assert one(database, query, organization_id) == (1, 0, COST_PICO + storage_pico)
    query = "SELECT kind FROM ledger.journal_entry WHERE organization_id = %s AND sequence = 2"
    assert one(database, query, organization_id) == (6,)
    assert await agrees(database, organization_id)


async def test_everything_the_price_depends_on_is_remembered(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    """Priced later or at once, a call costs the same."""
    calls: list[dict[str, Any]] = [
        {"funding": 2},
        {"outcome": 6, "status": 400},
        {"outcome": 7, "status": 499},
        {"service_tier": "flex"},
        {"usage": {"output_images": [{"size": "1024x1024", "quality": "hd", "count": 3}], "output_tokens": 9}},
        {"usage": {"input_tokens": 50, "cached_input_tokens": 20, "input_images": 3, "input_image_tokens": 30}},
        {"usage": {"input_tokens": 50, "cached_input_image_tokens": 0, "web_searches": 2}},
        {"usage": None, "usage_source": 0},
        {"payload_retained": True, "funding": 2},
    ]
    by_unit: dict[Unit, Decimal] = {
        unit: Decimal(f"0.00000{int(unit):02d}7") for unit in Unit if unit is not Unit.OUTPUT_IMAGE
    }
    images = (ImagePrice("1024x1024", "hd", Decimal("0.08")), ImagePrice("", "", Decimal("0.04")))
    prices = Prices(base=Rates(by_unit, images))
    both = PriceBook([PriceVersion(7, "openai", UNKNOWN, LONG_AGO, "operator", prices)], [])
    moment = now_in_utc() - timedelta(hours=2)
    other_id = add_organization(database)
    await recorder.record(a_request(*(a_record(organization_id, at=moment, model=UNKNOWN, **call) for call in calls)))
    with a_pricer(database, both) as pricer:
        await pricer.make_pass()
    async with a_recorder(database, both) as later:
        await later.record(a_request(*(a_record(other_id, at=moment, model=UNKNOWN, **call) for call in calls)))

    query = """
        SELECT array_agg(ARRAY[line::text, line_quantity::text, line_cost_pico::text, line_charged::text,
                               cost_pico::text, charged_pico::text] ORDER BY request_id)
          FROM ledger.usage_record WHERE organization_id = %s
    """
    assert sorted(one(database, query, organization_id)[0]) == sorted(one(database, query, other_id)[0])
    assert await agrees(database, organization_id)


async def test_a_price_that_begins_later_changes_nothing(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id, model=UNKNOWN)))
    later = PriceVersion(7, "openai", UNKNOWN, now_in_utc() + timedelta(seconds=1), "operator", PRICES)

    with a_pricer(database, PriceBook([later], [])) as pricer:
        assert await pricer.make_pass() == 0
    assert books_of(database, organization_id).records_charged == 0


async def test_what_retention_hides_is_not_charged_any_more(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id, at=now_in_utc() - timedelta(days=5), model=UNKNOWN)))
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        statement = "UPDATE ledger.organization SET plan = 1, retention_days = 3 WHERE organization_id = %s"
        connection.execute(statement, (organization_id,))

    with a_pricer(database) as pricer:
        await pricer.make_pass()
    assert books_of(database, organization_id).records_charged == 0


async def test_pricers_and_recorders_at_the_same_time_price_each_call_once(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    calls = [
        a_record(organization_id, model=UNKNOWN, at=now_in_utc() - timedelta(minutes=number)) for number in range(120)
    ]
    await recorder.record(a_request(*calls[:60]))
    with a_pricer(database) as first, a_pricer(database) as second:
        counts = await asyncio.gather(
            first.make_pass(),
            second.make_pass(),
            *(recorder.record(a_request(*calls[start : start + 10])) for start in range(60, 120, 10)),
            first.make_pass(),
        )
        counts += [await first.make_pass()]

    assert sum(count for count in counts if isinstance(count, int)) >= 120
    assert books_of(database, organization_id).records_charged == 120 * COST_PICO
    assert await agrees(database, organization_id)
