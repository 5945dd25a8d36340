"""The price book in PostgreSQL: nothing is rewritten, and every ledger is in step within a second."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import open_database
from services.ledger.prices.catalogue import EPOCH, SOURCE, Catalogue, read_catalogue
from services.ledger.prices.catalogue_loading import load_catalogue
from services.ledger.prices.price_book import PriceVersion
from services.ledger.prices.price_keeping import CurrentPrices
from services.ledger.pricing import ImagePrice, Prices, Rates, ServiceTier, Tier, Unit, Window
from services.ledger.storage.prices.prices import PriceStore
from services.ledger.storage.transactions import transaction
from tests.conftest import Database

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PER_TOKEN = Decimal("0.000000150000000002")


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database.ledger_url)
    yield engine
    await engine.dispose()


def a_version(**changes: object) -> PriceVersion:
    prices = Prices(base=Rates({Unit.INPUT_TOKEN: PER_TOKEN, Unit.OUTPUT_TOKEN: Decimal(0)}))
    return replace(PriceVersion(0, "acme", "one", NOW, "operator", prices), **changes)  # type: ignore[arg-type]


async def test_everything_a_version_says_comes_back_from_the_database(ledger: AsyncEngine) -> None:
    tier_rates = Rates({Unit.INPUT_TOKEN: Decimal("0.000003")})
    prices = Prices(
        base=Rates(
            {Unit.INPUT_TOKEN: PER_TOKEN, Unit.REQUEST: Decimal("9999999999.999999999999999999")},
            (ImagePrice("", "", Decimal("0.04")), ImagePrice("1024x1024", "hd", Decimal("0.08"))),
        ),
        tiers=(Tier(200_000, Rates()), Tier(None, tier_rates)),
        windows=(
            Window(
                start_minute=990,
                end_minute=30,
                weekdays=frozenset({6, 7}),
                rates=Rates({Unit.INPUT_TOKEN: Decimal(0)}),
                tiers=(Tier(10, tier_rates),),
            ),
        ),
        service_tiers=(
            ServiceTier(name="flex", multiplier=Decimal("0.5")),
            ServiceTier(name="fast", rates=tier_rates, tiers=(Tier(5, tier_rates), Tier(None, tier_rates))),
        ),
        tokens_per_input_image=560,
    )
    async with transaction(ledger) as connection:
        store = PriceStore(connection)
        await store.lock()
        (stored,) = await store.add_versions([a_version(model="whole", prices=prices)], NOW)
        read = [version for version in await store.versions() if version.model == "whole"]

    assert read == [stored]
    assert read[0].prices == prices


async def test_the_ledger_cannot_rewrite_a_price(ledger: AsyncEngine) -> None:
    for statement in ("UPDATE ledger.price SET price = 0", "DELETE FROM ledger.price_version"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with ledger.begin() as connection:
                await connection.execute(text(statement))


async def test_version_numbers_rise_in_the_order_of_publication_without_gaps(ledger: AsyncEngine) -> None:
    numbers = []
    for _ in range(3):
        async with transaction(ledger) as connection:
            store = PriceStore(connection)
            await store.lock()
            numbers += [version.version_id for version in await store.add_versions([a_version(), a_version()], NOW)]

    assert numbers == list(range(numbers[0], numbers[0] + 6))


async def test_a_running_ledger_takes_up_what_another_published(ledger: AsyncEngine) -> None:
    current = CurrentPrices(ledger)
    await current.refresh()
    before = current.book
    await current.refresh()
    assert current.book is before

    async with transaction(ledger) as connection:
        store = PriceStore(connection)
        await store.lock()
        (published,) = await store.add_versions([a_version(model="new")], NOW)
    await current.refresh()

    assert before.version_at("acme", "new", NOW) is None
    assert current.book.version_at("acme", "new", NOW) == published


async def test_the_catalogue_is_loaded_once(ledger: AsyncEngine) -> None:
    added = await load_catalogue(ledger, clock=lambda: NOW)
    again = await load_catalogue(ledger, clock=lambda: NOW)

    assert added == len(read_catalogue().versions)
    assert again == 0


async def test_the_whole_book_is_read_from_the_database_in_under_a_second(ledger: AsyncEngine) -> None:
    await load_catalogue(ledger, clock=lambda: NOW)
    current = CurrentPrices(ledger)

    began = time.process_time()
    await current.refresh()

    assert time.process_time() - began < 1
    version = current.book.version_at("openai", "gpt-4o", NOW)
    assert version is not None
    assert version.source == SOURCE


async def test_a_newer_edition_adds_versions_and_touches_no_old_one(ledger: AsyncEngine) -> None:
    epoch = datetime(EPOCH.year, 1, 1, tzinfo=UTC)
    old = a_version(model="edition", valid_from=epoch, source="genai-prices 1")
    dearer = Prices(base=Rates({Unit.INPUT_TOKEN: Decimal(2)}))
    new = replace(old, source="genai-prices 2", prices=dearer)
    await load_catalogue(ledger, source="genai-prices 1", read=lambda: Catalogue((old,), ()), clock=lambda: NOW)
    later = NOW + timedelta(days=30)

    added = await load_catalogue(
        ledger, source="genai-prices 2", read=lambda: Catalogue((new,), ()), clock=lambda: later
    )

    current = CurrentPrices(ledger)
    await current.refresh()
    history = current.book.history("acme", "edition")
    assert added == 1
    assert [(version.valid_from, version.prices) for version in history] == [(epoch, old.prices), (later, dearer)]
