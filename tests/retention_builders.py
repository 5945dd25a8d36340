"""A ledger under a clock that a test steps, and what it has on disk."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from services.common.database import open_database
from services.common.uuid7 import new_uuid7
from services.ledger.accounts.accounts import Plan
from services.ledger.retention.expiring import Expirer
from services.ledger.storage.retention import expiry
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.convert_import import imported_from_proto
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.importing import Importer
from services.ledger.usage.recording import UsageRecorder
from services.ledger.usage.records import RecordStatus
from tests.conftest import Database
from tests.usage_builders import a_price_book, a_record, a_request, in_thread, uuid7_at
from tollgate.ledger.v1.import_service_pb2 import ImportedRecord, ImportRecordsRequest
from tollgate.ledger.v1.usage_pb2 import UsageRecord

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
# Far from now, so that no clock of the machine can be what a test goes by.
NOON = datetime(2031, 5, 14, 12, tzinfo=UTC)


class Clock:
    """Shows what it is set to."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class SteppedLedger:
    """Records and lets expire, at whatever time its clock shows."""

    database: Database
    clock: Clock
    recorder: UsageRecorder
    importer: Importer
    expirer: Expirer

    async def record(self, *records: UsageRecord) -> list[RecordStatus]:
        request = a_request(*records)
        receipt = await self.recorder.record(delivery_from_proto(request, self.clock()))
        return [result.status for result in receipt.results]

    async def record_at(self, organization_id: str, moment: datetime, **fields: Any) -> UsageRecord:
        """A call that was made and recorded then, whatever the time is now."""
        now, self.clock.now = self.clock.now, moment
        record = a_record(organization_id, at=moment, request_id=uuid7_at(moment), **fields)
        assert await self.record(record) == [RecordStatus.RECORDED]
        self.clock.now = now
        return record

    async def import_calls(self, organization_id: str, moments: Sequence[datetime]) -> list[RecordStatus]:
        """Calls that another gateway made then, brought in now."""
        calls = []
        for number, moment in enumerate(moments):
            record = a_record("", at=moment)
            for name in ("request_id", "organization_id", "api_key_id"):
                record.ClearField(name)
            calls.append(ImportedRecord(source_id=f"call-{moment.isoformat()}-{number}", record=record))
        request = ImportRecordsRequest(source="other", records=calls)
        imported = imported_from_proto(request, UUID(organization_id), self.clock())
        results = await self.importer.import_records(UUID(organization_id), imported)
        return [one.result.status for one in results]

    async def pass_at(self, moment: datetime) -> None:
        """One pass of retention."""
        self.clock.now = moment
        await self.expirer.make_pass()

    def add_organization(self, plan: Plan = Plan.FREE, retention_days: int = 3) -> str:
        organization_id = str(new_uuid7())
        with psycopg.connect(self.database.ledger_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO ledger.organization VALUES (%s, 'Acme', %s, %s, false, %s)",
                (organization_id, int(plan), retention_days, NOON - 1_000 * DAY),
            )
            self._keep_plan(connection, organization_id, plan, retention_days, NOON - 1_000 * DAY)
        return organization_id

    def change_plan(self, organization_id: str, plan: Plan, retention_days: int) -> None:
        """As AccountKeeper does it, in one transaction."""
        with psycopg.connect(self.database.ledger_url) as connection:
            connection.execute(
                "UPDATE ledger.organization SET plan = %s, retention_days = %s WHERE organization_id = %s",
                (int(plan), retention_days, organization_id),
            )
            self._keep_plan(connection, organization_id, plan, retention_days, self.clock.now)

    def _keep_plan(
        self, connection: psycopg.Connection, organization_id: str, plan: Plan, days: int, valid_from: datetime
    ) -> None:
        statement = """
            INSERT INTO ledger.organization_plan (organization_id, valid_from, plan, retention_days)
            VALUES (%s, %s, %s, %s)
        """
        connection.execute(statement, (organization_id, valid_from, int(plan), days))

    def rows(self, query: str, *values: object) -> list[Any]:
        with psycopg.connect(self.database.admin_url) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def count(self, table: str, organization_id: str) -> int:
        query = f"SELECT count(*) FROM ledger.{table} WHERE organization_id = %s"
        ((count,),) = self.rows(query, organization_id)
        return int(count)

    def execute(self, statement: str, *values: object) -> None:
        """As the administrator, who may do what no program should."""
        with psycopg.connect(self.database.admin_url) as connection:
            connection.execute(statement.encode(), values)

    def expiries(self, organization_id: str) -> list[Any]:
        """What expired: day, kind, rows, records, cost."""
        query = """
            SELECT day, kind, row_count, record_count, cost_pico
              FROM ledger.expiry WHERE organization_id = %s ORDER BY expiry_id, kind
        """
        return self.rows(query, organization_id)


@asynccontextmanager
async def a_stepped_ledger(database: Database) -> AsyncIterator[SteppedLedger]:
    clock, book = Clock(), a_price_book()
    writer = DatabaseWriter(database.ledger_url, prepare_session)
    ingest, engine = Ingest(), open_database(database.ledger_url)
    recorder = UsageRecorder(in_thread(writer, ingest), lambda: book, clock=clock)
    recorder.start()
    importer = Importer(engine, writer, ingest, recorder, clock=clock)
    expirer = Expirer(DatabaseWriter(database.ledger_url, expiry.prepare_session), clock=clock, holder=uuid4())
    try:
        yield SteppedLedger(database, clock, recorder, importer, expirer)
    finally:
        await recorder.close()
        await expirer.close()
        writer.close()
        await engine.dispose()
