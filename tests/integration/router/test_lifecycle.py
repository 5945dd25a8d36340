"""Starting, draining, dying: what runs is finished, and what was begun is recorded."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from pyreqwest.exceptions import PyreqwestError

from services.common.sealed_secrets import new_key_settings
from tests.integration.router.conftest import PROVIDERS, StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body, free_address
from tollgate.ledger.v1 import usage_pb2
from tollgate.router.v1.inference_service_pb2 import StreamChatCompletionRequest
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceStub

SLOW = "Hello simulate:tokens=20 simulate:chunk_ms=100"
ENDLESS = "Hello simulate:tokens=1000 simulate:chunk_ms=50"


async def test_on_sigterm_running_streams_finish_and_are_recorded(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path) as router:
        key = ledger.grant()
        streams = [asyncio.create_task(router.chat(key, SLOW, stream=True)) for _ in range(5)]
        await asyncio.sleep(0.5)
        router.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*streams)
        exit_code = await asyncio.to_thread(router.process.wait, 20)

    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert exit_code == 0
    for answer in answers:
        assert (await ledger.record(answer.request_id)).usage.output_tokens == 20


async def test_while_it_drains_the_health_says_so(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_DRAIN_NOTICE_SECONDS="2") as router:
        router.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        health = await router.send("GET", "/health", None, None)
        call = await router.chat(ledger.grant())

    assert (health.status, health.json["status"]) == (503, "draining")
    assert call.status == 200


async def test_what_runs_longer_than_the_drain_time_is_cut_off_and_recorded(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_DRAIN_SECONDS="1") as router:
        key = ledger.grant()
        begun = asyncio.Event(), asyncio.Event()
        endless = [
            asyncio.create_task(stream_by_http(router, key, begun[0])),
            asyncio.create_task(stream_by_grpc(router, key, begun[1])),
        ]
        for each in begun:
            await each.wait()
        start = time.monotonic()
        router.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(router.process.wait, 20)
        seconds = time.monotonic() - start
        await asyncio.gather(*endless, return_exceptions=True)

    records = await ledger.records_of(key)
    assert len(records) == 2
    assert {record.outcome for record in records} <= {usage_pb2.OUTCOME_GATEWAY_ERROR, usage_pb2.OUTCOME_CLIENT_GONE}
    assert seconds < 6


async def stream_by_http(router: Router, key: str, begun: asyncio.Event) -> None:
    async with router.open_chat(key, ENDLESS) as response:
        while await response.body_reader.read_chunk():
            begun.set()


async def stream_by_grpc(router: Router, key: str, begun: asyncio.Event) -> None:
    request = StreamChatCompletionRequest(body=HttpBody(data=chat_body(ENDLESS, stream=True)))
    async with grpc.aio.insecure_channel(router.grpc_address) as channel:
        stub: Any = InferenceServiceStub(channel)
        async for _ in stub.StreamChatCompletion(request, metadata=(("authorization", f"Bearer {key}"),)):
            begun.set()


async def test_a_killed_router_leaves_no_worker_behind_and_its_calls_are_recorded_by_the_next(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    key = ledger.grant()
    async with start_router(tmp_path) as router:
        finished = await router.chat(key)
        running = asyncio.create_task(router.chat(key, SLOW, stream=True))
        await asyncio.sleep(0.5)
        router.process.kill()
        router.process.wait()
        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(PyreqwestError):
            await router.send("GET", "/health", None, None)
    async with start_router(tmp_path):
        await ledger.record(finished.request_id)
        records = await ledger.records_of(key)
        while len(records) < 2:
            await asyncio.sleep(0.05)
            records = await ledger.records_of(key)

    lost = next(record for record in records if record.request_id != finished.request_id)
    assert lost.outcome == usage_pb2.OUTCOME_UNKNOWN
    assert list(lost.flags) == [usage_pb2.RECORD_FLAG_RECOVERED]
    assert (lost.provider, lost.model) == ("openai", "gpt-4o")


async def test_several_workers_share_the_addresses_and_record_everything(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_ROUTER_WORKERS="2") as router:
        key = ledger.grant()
        answers = await asyncio.gather(*(router.chat(key) for _ in range(100)))
        for answer in answers:
            await ledger.record(answer.request_id)
        workers = [path.name for path in (tmp_path / "spool").iterdir()]

    assert {answer.status for answer in answers} == {200}
    assert sorted(workers) == ["0", "1"]


def start_wrongly(directory: Path, changed: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    providers = directory / "providers.toml"
    providers.write_text(PROVIDERS.format(simulator="127.0.0.1:1", nobody="127.0.0.1:1"))
    variables = {
        "TOLLGATE_SERVICE_TOKEN": "token",
        "TOLLGATE_ROUTER_HTTP_ADDRESS": free_address(),
        "TOLLGATE_ROUTER_GRPC_ADDRESS": free_address(),
        "TOLLGATE_ROUTER_METRICS_ADDRESS": free_address(),
        "TOLLGATE_SPOOL_DIRECTORY": str(directory / "spool"),
        "TOLLGATE_PROVIDERS_FILE": str(providers),
        "SIMULATOR_API_KEY": "simulated",
        "WRONG_API_KEY": "wrong",
        **new_key_settings(),
        **changed,
    }
    return subprocess.run(
        [sys.executable, "-m", "services.router"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"TOLLGATE_SERVICE_TOKEN": ""}, "TOLLGATE_SERVICE_TOKEN is not set", id="no service token"),
        pytest.param({"SIMULATOR_API_KEY": ""}, "SIMULATOR_API_KEY is not set", id="no provider key"),
        pytest.param({"TOLLGATE_PROVIDERS_FILE": "/nowhere.toml"}, "TOLLGATE_PROVIDERS_FILE", id="no providers"),
        pytest.param({"TOLLGATE_PROVIDER_KEY_PRIVATE": "short"}, "TOLLGATE_PROVIDER_KEY_PRIVATE", id="no private key"),
        pytest.param({"TOLLGATE_ROUTER_WORKERS": "0"}, "TOLLGATE_ROUTER_WORKERS", id="no workers"),
        pytest.param({"TOLLGATE_SPOOL_DIRECTORY": "/proc/spool"}, "spool directory", id="no spool"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, changed: Mapping[str, str], said: str) -> None:
    done = start_wrongly(tmp_path, changed)

    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("router: ") and said in done.stderr


@pytest.mark.parametrize("name", ["HTTP", "GRPC", "METRICS"])
def test_a_taken_port_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start_wrongly(tmp_path, {f"TOLLGATE_ROUTER_{name}_ADDRESS": address})

    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert address in done.stderr


def test_the_supervisor_leaves_the_http_client_to_its_workers() -> None:
    # Whose allocator reads its settings when it is loaded, and is told them by the supervisor.
    script = "import sys, services.router.__main__; sys.exit('pyreqwest' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
