"""Batches are written by a process of their own, which may be killed at any moment like everything else."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
import uvloop

from services.common.errors import UnavailableError
from services.ledger.storage.usage.batch_writer import BatchWriter
from services.ledger.storage.usage.contents import CannotStoreError, PreparedBatch, prepare, recounted
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.recording import UsageRecorder, priced
from services.ledger.usage.records import Delivery, RecordStatus
from tests.conftest import Database
from tests.usage_builders import (
    Recorder,
    a_price_book,
    a_record,
    a_request,
    add_organization,
    books_of,
    now_in_utc,
    waiting_backends,
)

RECORDED, DUPLICATE, CONFLICT, INVALID = RecordStatus


@asynccontextmanager
async def a_recorder_with_its_process(database_url: str) -> AsyncIterator[Recorder]:
    prices, writer = a_price_book(), BatchWriter(database_url, "WARNING")
    recorder = UsageRecorder(writer.write, lambda: prices, clock=now_in_utc)
    await writer.start()
    recorder.start()
    try:
        yield Recorder(recorder)
    finally:
        await recorder.close()
        await writer.close()


@pytest.fixture
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder_with_its_process(database.ledger_url) as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


def writing_process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "batch_process" in " ".join(child.cmdline())]
    return found


async def test_new_repeated_contradicted_and_broken_records_are_told_apart(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    known = a_record(organization_id)
    contradiction = a_record(organization_id, latency_ms=5)
    contradiction.request_id = known.request_id
    broken = a_record(organization_id, status=1_000)
    await recorder.record(a_request(known))

    statuses = await recorder.statuses(a_request(a_record(organization_id), known, contradiction, broken))

    assert statuses == [RECORDED, DUPLICATE, CONFLICT, INVALID]
    books = books_of(database, organization_id)
    assert books.record_count == 2
    assert books.agree


def prepared(organization_id: str, workflow: str) -> tuple[PreparedBatch, list[Delivery]]:
    """A batch of one failed call, and what it was made of, with a workflow that nobody checks."""
    delivery = delivery_from_proto(a_request(a_record(organization_id, status=500)), now_in_utc())
    (received,) = delivery.received
    assert received.record is not None
    received.priced = priced(received.record, a_price_book())
    batch = prepare([delivery])
    received.priced = received.priced._replace(record=received.record._replace(workflow=workflow))
    return batch, [delivery]


def test_sums_of_a_recount_that_cannot_be_packed_are_what_cannot_be_stored(organization_id: str) -> None:
    batch, deliveries = prepared(organization_id, workflow="\ud800")

    with pytest.raises(CannotStoreError):
        recounted(batch, deliveries, [0])


def test_what_the_driver_cannot_send_is_what_cannot_be_stored(database: Database, organization_id: str) -> None:
    batch, _ = prepared(organization_id, workflow="")
    ((key, count),) = batch.sums.failures.items()
    broken = batch._replace(sums=batch.sums._replace(failures={key._replace(error_type="\ud800"): count}))
    with psycopg.connect(database.ledger_url, autocommit=True) as connection:
        prepare_session(connection)

        with pytest.raises(CannotStoreError):
            Ingest().record(connection, broken, now_in_utc())

    assert books_of(database, organization_id).record_count == 0


async def test_batches_that_are_sent_together_are_answered_each_with_its_own(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    requests = [a_request(*(a_record(organization_id) for _ in range(400))) for _ in range(12)]

    receipts = await asyncio.gather(*map(recorder.record, requests))

    for request, receipt in zip(requests, receipts, strict=True):
        assert [result.request_id for result in receipt.results] == [record.request_id for record in request.records]
    books = books_of(database, organization_id)
    assert books.record_count == 4_800
    assert books.agree


@pytest.mark.parametrize("producer_id", ["", str(uuid4())], ids=["by request id", "by sequence"])
async def test_a_process_that_is_killed_in_mid_batch_costs_nothing_but_time(
    recorder: Recorder, database: Database, organization_id: str, producer_id: str
) -> None:
    request = a_request(*(a_record(organization_id) for _ in range(5)), producer_id=producer_id)
    with psycopg.connect(database.admin_url) as blocker:
        # The batch gets as far as the figures, and waits there for a lock when its process is killed.
        blocker.execute("LOCK TABLE ledger.usage_hour IN SHARE MODE")
        delivery = asyncio.create_task(recorder.record(request))
        await waiting_backends(database)
        writing_process().kill()

    receipt = await delivery

    assert [result.status for result in receipt.results] == [RECORDED] * 5
    books = books_of(database, organization_id)
    assert books.record_count == 5
    assert books.agree


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("noticed", [False, True])
def test_the_next_batch_after_the_process_was_killed_is_written_by_another(
    run: Callable[[Coroutine[Any, Any, None]], None], noticed: bool, database: Database, organization_id: str
) -> None:
    async def kill_and_record() -> None:
        async with a_recorder_with_its_process(database.ledger_url) as recorder:
            first = writing_process()
            first.kill()
            if noticed:
                await asyncio.sleep(0.2)

            assert await recorder.statuses(a_request(a_record(organization_id))) == [RECORDED]
            assert writing_process().pid != first.pid

    run(kill_and_record())


async def test_signals_to_everybody_do_not_end_the_process_before_its_work_is_done(
    recorder: Recorder, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id)))  # it has begun by then
    process = writing_process()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)

    assert await recorder.statuses(a_request(a_record(organization_id))) == [RECORDED]
    assert writing_process().pid == process.pid


async def test_the_process_ends_with_its_ledger(database: Database) -> None:
    async with a_recorder_with_its_process(database.ledger_url):
        process = writing_process()

    process.wait(timeout=10)


async def test_without_a_database_callers_are_told_to_try_again(database: Database, organization_id: str) -> None:
    nowhere = database.ledger_url.replace("/tollgate_", "/no_such_")
    async with a_recorder_with_its_process(nowhere) as recorder:
        with pytest.raises(UnavailableError):
            await recorder.record(a_request(a_record(organization_id)))
