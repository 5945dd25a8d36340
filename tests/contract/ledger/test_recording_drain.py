import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc

from development.addresses import Addresses
from development.processes import Process
from development.readiness import answers_grpc_health
from services.common.sealed_secrets import PUBLIC_SETTING, new_key_settings
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, SERVICE_TOKEN
from tests.usage_builders import a_record, a_request, add_organization, books_of
from tollgate.ledger.v1.usage_service_pb2 import RECORD_STATUS_RECORDED
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceStub

CALLS = 200


def a_ledger(database: Database, addresses: Addresses, directory: Path) -> Process:
    environment = {
        "TOLLGATE_DATABASE_URL": database.ledger_url,
        "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
        "TOLLGATE_LEDGER_ADDRESS": addresses.ledger,
        "TOLLGATE_LEDGER_METRICS_ADDRESS": addresses.ledger_metrics,
        PUBLIC_SETTING: new_key_settings()[PUBLIC_SETTING],
    }
    command = [sys.executable, "-m", "services.ledger"]
    return Process("ledger", command, environment, directory / "ledger.log", answers_grpc_health(addresses.ledger))


async def test_a_ledger_that_is_told_to_stop_books_and_answers_what_it_has_taken(
    database: Database, tmp_path: Path
) -> None:
    organization_id = add_organization(database)
    addresses = Addresses.free()
    ledger = a_ledger(database, addresses, tmp_path)
    await ledger.start()

    async with grpc.aio.insecure_channel(addresses.ledger) as channel:
        stub = UsageServiceStub(channel)

        async def is_recorded() -> bool:
            try:
                response = await stub.RecordUsage(a_request(a_record(organization_id)), metadata=INSIDE, timeout=20)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
                return False
            return bool(response.results[0].status == RECORD_STATUS_RECORDED)

        calls = [asyncio.create_task(is_recorded()) for _ in range(CALLS)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert ledger.pid is not None
        os.kill(ledger.pid, signal.SIGTERM)
        recorded = sum(await asyncio.gather(*calls))
    await ledger.wait()

    books = books_of(database, organization_id)
    assert "Traceback" not in (tmp_path / "ledger.log").read_text()
    assert recorded > 0
    assert books.record_count == recorded
    assert books.agree
