"""The service as it is run: `python -m services.reporting`."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from development.addresses import Addresses
from tests.conftest import Database
from tests.contract.reporting.books import Books
from tests.contract.reporting.reporting_server import Clock, Reporting

START_SECONDS = 15


async def start(variables: Mapping[str, str]) -> Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.reporting", env=inherited | dict(variables), stdout=DEVNULL, stderr=PIPE
    )


def environment(database: Database, addresses: Addresses) -> dict[str, str]:
    return {
        "TOLLGATE_DATABASE_URL": database.reporting_url,
        "TOLLGATE_SERVICE_TOKEN": "inside",
        "TOLLGATE_REPORTING_ADDRESS": addresses.reporting,
        "TOLLGATE_REPORTING_METRICS_ADDRESS": addresses.reporting_metrics,
    }


async def test_it_starts_answers_says_that_it_is_healthy_and_stops_when_told(database: Database, books: Books) -> None:
    addresses = Addresses.free()
    process = await start(environment(database, addresses))
    try:
        async with grpc.aio.insecure_channel(addresses.reporting) as channel:
            async with asyncio.timeout(START_SECONDS):
                await channel.channel_ready()
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            answer = await Reporting(channel, Clock()).activity(books.customer().key)
        _, metrics = await _get(addresses.reporting_metrics, "/metrics")
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert answer == []
    assert (
        b'tollgate_grpc_calls_total{code="OK",method="/tollgate.reporting.v1.ActivityService/GetActivity"}' in metrics
    )
    assert process.returncode == 0
    assert b"Traceback" not in log


async def _get(address: str, path: str) -> tuple[bytes, bytes]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, body


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"TOLLGATE_DATABASE_URL": ""}, "TOLLGATE_DATABASE_URL is not set"),
        ({"TOLLGATE_DATABASE_URL": "mysql://x"}, "TOLLGATE_DATABASE_URL must look like postgresql://"),
        ({"TOLLGATE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, "TOLLGATE_DATABASE_URL: cannot use"),
        ({"TOLLGATE_SERVICE_TOKEN": ""}, "TOLLGATE_SERVICE_TOKEN is not set"),
        ({"TOLLGATE_REPORTING_ADDRESS": "nowhere"}, "TOLLGATE_REPORTING_ADDRESS must be host:port"),
        ({"TOLLGATE_DRAIN_SECONDS": "soon"}, "TOLLGATE_DRAIN_SECONDS must be a whole number"),
        ({"TOLLGATE_REPORTING_ADDRESS": "192.0.2.1:80"}, "cannot listen on 192.0.2.1:80"),
        ({"TOLLGATE_REPORTING_METRICS_ADDRESS": "192.0.2.1:80"}, "cannot serve metrics on 192.0.2.1:80"),
    ],
    ids=str,
)
async def test_what_stops_the_start_is_said_in_one_line(
    database: Database, changed: dict[str, str], named: str
) -> None:
    process = await start(environment(database, Addresses.free()) | changed)

    _, said = await process.communicate()

    assert process.returncode == 2
    (line,) = said.decode().splitlines()
    assert line.startswith(f"reporting: {named}")
