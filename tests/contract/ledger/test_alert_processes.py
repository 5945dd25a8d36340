"""What the ledger's process does with deliveries when it is killed, told to stop, or set up otherwise.

Beside no other ledger: two share the work.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from development.addresses import Addresses
from development.processes import Process
from development.readiness import answers_grpc_health
from services.common.sealed_secrets import PUBLIC_SETTING, new_key_settings
from tests.conftest import Database
from tests.contract.ledger.accounts_server import OPERATOR, OPERATOR_KEY, SERVICE_TOKEN
from tests.contract.ledger.alert_calls import FAILED, call, deliveries, make_rule
from tests.webhook_receiver import HANG, HOLD, Receiver, a_receiver
from tollgate.ledger.v1 import alert_service_pb2 as wire
from tollgate.ledger.v1.account_service_pb2 import CreateOrganizationRequest
from tollgate.ledger.v1.account_service_pb2_grpc import AccountServiceStub
from tollgate.ledger.v1.alert_service_pb2_grpc import AlertServiceStub
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceStub

ALERT_SETTINGS = {
    "TOLLGATE_WEBHOOK_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "TOLLGATE_WEBHOOK_HTTP_ALLOWED": "true",
    "TOLLGATE_WEBHOOK_PRIVATE_ALLOWED": "true",
    "TOLLGATE_WEBHOOK_TIMEOUT_SECONDS": "1",
    "TOLLGATE_ALERT_INTERVAL_SECONDS": "1",
}


def a_process(database: Database, addresses: Addresses, directory: Path, **more: str) -> Process:
    environment = {
        "TOLLGATE_DATABASE_URL": database.ledger_url,
        "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
        "TOLLGATE_LEDGER_ADDRESS": addresses.ledger,
        "TOLLGATE_LEDGER_METRICS_ADDRESS": addresses.ledger_metrics,
        "GATEWAY_API_KEY": OPERATOR_KEY,
        PUBLIC_SETTING: new_key_settings()[PUBLIC_SETTING],
        **ALERT_SETTINGS,
        **more,
    }
    command = [sys.executable, "-m", "services.ledger"]
    return Process("ledger", command, environment, directory / "ledger.log", answers_grpc_health(addresses.ledger))


@asynccontextmanager
async def a_rule_about_to_fire(addresses: Addresses, receiver: Receiver) -> AsyncIterator[str]:
    """The secret of a rule of a new organization, whose calls fail."""
    async with grpc.aio.insecure_channel(addresses.ledger) as channel:
        created = await AccountServiceStub(channel).CreateOrganization(
            CreateOrganizationRequest(display_name="Acme"), metadata=OPERATOR
        )
        acme = created.organization.organization_id
        made = await make_rule(AlertServiceStub(channel), OPERATOR, organization_id=acme, webhook_url=receiver.url)
        await call(UsageServiceStub(channel), acme, 3, **FAILED)
        yield made.webhook_secret


async def test_what_a_killed_ledger_had_not_delivered_the_next_one_does_under_the_same_id(
    database: Database, tmp_path: Path
) -> None:
    addresses = Addresses.free()
    ledger = a_process(database, addresses, tmp_path)
    await ledger.start()
    try:
        with a_receiver(HANG) as receiver:
            async with a_rule_about_to_fire(addresses, receiver) as secret:
                await deliveries(receiver, 1)
                await ledger.kill()
            await ledger.start()
            first, again = await deliveries(receiver, 2)
    finally:
        await ledger.stop()

    assert first.id == again.id
    assert first.body == again.body
    assert again.is_signed_with(secret)


async def test_a_ledger_that_is_told_to_stop_finishes_what_it_delivers(database: Database, tmp_path: Path) -> None:
    addresses = Addresses.free()
    ledger = a_process(database, addresses, tmp_path, TOLLGATE_WEBHOOK_TIMEOUT_SECONDS="10")
    await ledger.start()
    with a_receiver(HOLD) as receiver:
        async with a_rule_about_to_fire(addresses, receiver):
            await deliveries(receiver, 1)
            assert ledger.pid is not None
            os.kill(ledger.pid, signal.SIGTERM)
            await asyncio.sleep(0.5)
            receiver.released.set()
        await ledger.wait()
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute(
            "SELECT state, attempt_count FROM ledger.alert_delivery ORDER BY alert_id DESC LIMIT 1"
        ).fetchone()

    assert row == (wire.ALERT_DELIVERY_STATE_DELIVERED, 1)
    assert "Traceback" not in (tmp_path / "ledger.log").read_text()


async def test_no_log_tells_a_secret_or_where_deliveries_go(database: Database, tmp_path: Path) -> None:
    addresses = Addresses.free()
    ledger = a_process(database, addresses, tmp_path)
    await ledger.start()
    try:
        with a_receiver(500) as receiver:
            async with a_rule_about_to_fire(addresses, receiver) as secret:
                await deliveries(receiver, 1)
    finally:
        await ledger.stop()
    log = (tmp_path / "ledger.log").read_text()

    assert "alert not delivered" in log
    assert secret not in log
    assert receiver.url not in log


async def test_without_a_key_a_ledger_keeps_rules_but_no_webhooks(database: Database, tmp_path: Path) -> None:
    addresses = Addresses.free()
    ledger = a_process(database, addresses, tmp_path, TOLLGATE_WEBHOOK_KEY="")
    await ledger.start()
    try:
        async with grpc.aio.insecure_channel(addresses.ledger) as channel:
            created = await AccountServiceStub(channel).CreateOrganization(
                CreateOrganizationRequest(display_name="Acme"), metadata=OPERATOR
            )
            own, alerts = {"organization_id": created.organization.organization_id}, AlertServiceStub(channel)
            await make_rule(alerts, OPERATOR, **own)
            with pytest.raises(grpc.aio.AioRpcError, match="TOLLGATE_WEBHOOK_KEY"):
                await make_rule(alerts, OPERATOR, **own, webhook_url="https://example.com/")
    finally:
        await ledger.stop()
