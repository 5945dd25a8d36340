"""Usage records for tests, and the books as they stand afterwards."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from services.common.uuid7 import new_uuid7
from services.ledger.accounts.accounts import Plan
from services.ledger.prices.price_book import Discount, PriceBook, PriceVersion
from services.ledger.pricing import Prices, Rates, Unit
from services.ledger.storage.usage.contents import PreparedBatch
from services.ledger.storage.usage.ingest import Ingest, Outcome, Recount
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.recording import UsageRecorder, WriteBatch
from services.ledger.usage.records import Receipt, RecordStatus
from tests.conftest import Database
from tollgate.ledger.v1.usage_pb2 import FUNDING_CREDITS, Attempt, Usage, UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# 2.50 USD per million tokens in, 1.25 of them cached, 10 out.
PRICES = Prices(
    base=Rates(
        {
            Unit.INPUT_TOKEN: Decimal("0.0000025"),
            Unit.CACHED_INPUT_TOKEN: Decimal("0.00000125"),
            Unit.OUTPUT_TOKEN: Decimal("0.00001"),
        }
    )
)
# What the record of `a_record` costs with these.
COST_PICO = 400 * 2_500_000 + 600 * 1_250_000 + 200 * 10_000_000


def now_in_utc() -> datetime:
    return datetime.now(UTC)


def a_price_book(discount: str = "0") -> PriceBook:
    version = PriceVersion(1, "openai", "gpt-4o", LONG_AGO, "operator", PRICES)
    everyone = Discount(
        discount_id=1,
        organization_id=None,
        provider=None,
        model=None,
        fraction=Decimal(discount),
        valid_from=LONG_AGO,
        valid_to=None,
    )
    return PriceBook([version], [everyone])


def uuid7_at(moment: datetime) -> str:
    """A fresh id that says it was made then."""
    milliseconds = round(moment.timestamp() * 1_000)
    return str(UUID(int=milliseconds << 80 | new_uuid7().int & (1 << 80) - 1))


def a_record(organization_id: str, *, at: datetime | None = None, **fields: Any) -> UsageRecord:
    """A successful call of 1,000 tokens in, 600 of them cached, and 200 out, as the router would send it."""
    start_time = at or now_in_utc() - timedelta(seconds=1)
    values: dict[str, Any] = {
        "request_id": uuid7_at(start_time),
        "organization_id": organization_id,
        "project_id": "web",
        "api_key_id": "5f0c7c2e-0000-4000-8000-000000000001",
        "endpoint": 1,
        "requested_model": "gpt-4o",
        "model": "gpt-4o",
        "provider": "openai",
        "start_time": start_time,
        "latency_ms": 900,
        "time_to_first_token_ms": 200,
        "outcome": 1,
        "status": 200,
        "funding": 1,
        "usage": Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "usage_source": 1,
        "attempts": [
            Attempt(provider="openai", upstream_model="gpt-4o", funding=FUNDING_CREDITS, status=200, latency_ms=890)
        ],
    }
    return UsageRecord(**values | fields)


def a_request(
    *records: UsageRecord, producer_id: str = "", first_sequence: int = 1, epoch: int = 1
) -> RecordUsageRequest:
    """One call. Numbers copies of the records where a producer is named."""
    request = RecordUsageRequest(records=records)
    if producer_id:
        request.producer_id, request.epoch = producer_id, epoch
        for sequence, record in enumerate(request.records, first_sequence):
            record.sequence = sequence
    return request


def add_organization(database: Database, plan: Plan = Plan.PRO) -> str:
    organization_id = str(new_uuid7())
    with psycopg.connect(database.ledger_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.organization VALUES (%s, 'Acme', %s, 90, false, now())", (organization_id, int(plan))
        )
    return organization_id


def in_thread(writer: DatabaseWriter, ingest: Ingest) -> WriteBatch:
    """Writes batches here, where the ledger has a process for it, so that a test can look on and meddle."""

    async def write(batch: PreparedBatch, receipt_time: datetime) -> Outcome | Recount:
        return await writer.run(lambda connection: ingest.record(connection, batch, receipt_time))

    return write


class Recorder:
    """A recorder as the ledger runs it, spoken to as the wire does."""

    def __init__(self, recorder: UsageRecorder) -> None:
        self._recorder = recorder

    async def record(self, request: RecordUsageRequest) -> Receipt:
        # The wire makes a message of each delivery's own, and so must a test that delivers one twice.
        copy = RecordUsageRequest.FromString(request.SerializeToString())
        return await self._recorder.record(delivery_from_proto(copy, now_in_utc()))

    async def statuses(self, request: RecordUsageRequest) -> list[RecordStatus]:
        return [result.status for result in (await self.record(request)).results]


@asynccontextmanager
async def a_recorder(
    database: Database, book: PriceBook | None = None, ingest: Ingest | None = None
) -> AsyncIterator[Recorder]:
    prices = book or a_price_book()
    writer = DatabaseWriter(database.ledger_url, prepare_session)
    recorder = UsageRecorder(in_thread(writer, ingest or Ingest()), lambda: prices, clock=now_in_utc)
    recorder.start()
    try:
        yield Recorder(recorder)
    finally:
        await recorder.close()
        writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything that one organization's records add up to, asked of each place that keeps it."""

    record_count: int
    records_cost: Decimal
    records_charged: Decimal
    records_saved: Decimal
    lines_cost: Decimal
    lines_charged: Decimal
    hours_count: Decimal
    hours_cost: Decimal
    hours_charged: Decimal
    hours_saved: Decimal
    # By account.
    journal: dict[int, Decimal]
    balances: dict[int, Decimal]
    sequences: Sequence[int]

    @property
    def agree(self) -> bool:
        """Lines = records = hours = journal = balances, and the journal has no gaps."""
        owned = sum(amount for account, amount in self.journal.items() if account in (1, 2, 3))
        granted = -sum(amount for account, amount in self.journal.items() if account in (9, 10))
        return (
            self.lines_cost == self.records_cost == self.hours_cost
            and self.lines_charged == self.records_charged == self.hours_charged == granted - owned
            and self.records_saved == self.hours_saved
            and self.record_count == self.hours_count
            and self.journal == self.balances
            and sum(self.journal.values()) == 0
            and list(self.sequences) == list(range(1, len(self.sequences) + 1))
        )


def books_of(database: Database, organization_id: str) -> Books:
    with psycopg.connect(database.admin_url) as connection:

        def row(query: str) -> Any:
            return connection.execute(query.encode(), {"organization_id": organization_id}).fetchone()

        def by_account(query: str) -> dict[int, Decimal]:
            rows = connection.execute(query.encode(), {"organization_id": organization_id}).fetchall()
            return {account: amount for account, amount in rows if amount}

        mine = "WHERE organization_id = %(organization_id)s"
        records = row(f"""
            SELECT count(*), COALESCE(sum(cost_pico), 0), COALESCE(sum(charged_pico), 0), COALESCE(sum(saved_pico), 0)
              FROM reporting.usage_record {mine}
        """)
        lines = row(f"""
            SELECT COALESCE(sum(cost_pico), 0), COALESCE(sum(cost_pico) FILTER (WHERE charged), 0)
              FROM reporting.cost_line {mine}
        """)
        hours = row(f"""
            SELECT COALESCE(sum(request_count), 0), COALESCE(sum(cost_pico), 0), COALESCE(sum(charged_pico), 0),
                   COALESCE(sum(saved_pico), 0)
              FROM reporting.usage_hour {mine}
        """)
        journal = by_account(f"""
            SELECT account, sum(amount)
              FROM ledger.journal_entry, unnest(accounts, amounts) AS posting (account, amount)
            {mine} GROUP BY account
        """)
        balances = by_account(f"SELECT account, amount_pico FROM ledger.balance {mine}")
        sequences = connection.execute(
            f"SELECT sequence FROM ledger.journal_entry {mine} ORDER BY 1".encode(),
            {"organization_id": organization_id},
        ).fetchall()
    return Books(
        record_count=records[0],
        records_cost=records[1],
        records_charged=records[2],
        records_saved=records[3],
        lines_cost=lines[0],
        lines_charged=lines[1],
        hours_count=hours[0],
        hours_cost=hours[1],
        hours_charged=hours[2],
        hours_saved=hours[3],
        journal=journal,
        balances=balances,
        sequences=[sequence for (sequence,) in sequences],
    )


async def waiting_backends(database: Database) -> list[int]:
    """The ledger's connections that wait for a lock, once there are any."""
    query = """
        SELECT pid FROM pg_stat_activity
         WHERE usename = 'tollgate_ledger' AND wait_event_type = 'Lock' AND datname = current_database()
    """
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        for _ in range(500):
            found = [pid for (pid,) in connection.execute(query)]
            if found:
                return found
            await asyncio.sleep(0.02)
    raise AssertionError("nobody waits for a lock")
