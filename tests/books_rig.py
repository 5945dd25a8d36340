"""The ledger's books as they run, with a clock that a test steps and prices that a test publishes."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import open_database
from services.ledger.books.billing import Billing
from services.ledger.books.book_reading import BookReader, Statement
from services.ledger.books.credit_ending import CreditEnder
from services.ledger.books.statement import Period
from services.ledger.books.verifying import BookVerifier
from services.ledger.paging import BY_NUMBER, page_request
from services.ledger.prices.price_book import Discount, PriceBook, PriceVersion
from services.ledger.storage.books.verification import Difference
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.late_pricing import LatePricer
from services.ledger.usage.recording import UsageRecorder
from tests.conftest import Database
from tests.usage_builders import LONG_AGO, PRICES, a_price_book, in_thread, now_in_utc
from tollgate.ledger.v1.usage_pb2 import UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest

UNPRICED_MODEL = "priced-later"


@dataclass(slots=True)
class Clock:
    """Stands until it is stepped."""

    now: datetime = field(default_factory=now_in_utc)

    def __call__(self) -> datetime:
        return self.now

    def step(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class BooksRig:
    """Everything that touches an organization's books."""

    def __init__(self, database: Database, engine: AsyncEngine, discount: str) -> None:
        self.clock = Clock()
        self._discount = discount
        self._book = a_price_book(discount)
        self.writer = DatabaseWriter(database.ledger_url, prepare_session)
        self.recorder = UsageRecorder(in_thread(self.writer, Ingest()), lambda: self._book, clock=self.clock)
        self.billing = Billing(engine, self.writer, clock=self.clock)
        self.reader = BookReader(engine, clock=self.clock)
        self.ender = CreditEnder(self.writer, clock=self.clock)
        self.pricer = LatePricer(self.writer, lambda: self._book, clock=self.clock)
        self._verifier = BookVerifier(engine, clock=self.clock)

    async def record(self, records: Iterable[UsageRecord]) -> None:
        # The wire makes a message of each delivery's own.
        request = RecordUsageRequest.FromString(RecordUsageRequest(records=records).SerializeToString())
        receipt = await self.recorder.record(delivery_from_proto(request, self.clock()))
        assert all(result.status <= 2 for result in receipt.results), receipt

    async def publish(self) -> int:
        """Publishes the price of `UNPRICED_MODEL`; returns how many records it priced."""
        known = a_price_book(self._discount)
        version = PriceVersion(2, "openai", UNPRICED_MODEL, LONG_AGO, "operator", PRICES)
        discounts: list[Discount] = known.discounts()
        self._book = PriceBook([*known.history("openai", "gpt-4o"), version], discounts)
        return await self.pricer.make_pass()

    def unpublish(self) -> None:
        """For the next organization."""
        self._book = a_price_book(self._discount)

    async def remaining(self, organization_id: str) -> dict[str, int]:
        asked = page_request(BY_NUMBER, limit="500", page_token="", filters=())
        page = await self.reader.grants(UUID(organization_id), asked)
        return {row.grant.grant_id: row.remaining_pico for row in page.items}

    async def balances(self, organization_id: str) -> dict[int, int]:
        standing = await self.billing.standing(organization_id)
        return {int(account): amount for account, amount in standing.balances.items() if amount}

    async def statement(self, organization_id: str) -> Statement:
        today = self.clock().date()
        return await self.reader.statement(UUID(organization_id), Period(today - timedelta(days=40), today))

    async def differences(self, organization_id: str) -> list[Difference]:
        return (await self._verifier.verify(UUID(organization_id))).differences


@asynccontextmanager
async def a_books_rig(database: Database, discount: str = "0.2") -> AsyncIterator[BooksRig]:
    engine = open_database(database.ledger_url)
    rig = BooksRig(database, engine, discount)
    rig.recorder.start()
    try:
        yield rig
    finally:
        await rig.recorder.close()
        rig.writer.close()
        await engine.dispose()
