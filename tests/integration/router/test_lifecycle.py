"""Starting, draining, dying: what runs is finished, and what was begun is recorded."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from development.addresses import free_address
from services.common.sealed_secrets import new_key_settings
from tests.integration.router.conftest import PROVIDERS, StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body
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


def workers_of(router: Router) -> list[int]:
    pid = router.process.pid
    return [int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_killed_worker_is_replaced_and_calls_go_on_being_answered(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_ROUTER_WORKERS="2") as router:
        key = ledger.grant()
        killed, left = workers_of(router)
        os.kill(killed, signal.SIGKILL)
        # What is on its way to it is lost with it.
        while killed in workers_of(router):  # noqa: ASYNC110 there is no event
            await asyncio.sleep(0.01)
        answers = [await router.chat(key)]
        while len(workers_of(router)) < 2:
            answers.append(await router.chat(key))
        # Each on a connection of its own, so that both have some.
        for _ in range(20):
            async with ClientBuilder().no_proxy().build() as client:
                answers.append(await replace(router, client=client).chat(key))
        replaced_by = workers_of(router)
        router.process.send_signal(signal.SIGTERM)
        exit_code = await asyncio.to_thread(router.process.wait, 20)

    assert {answer.status for answer in answers} == {200}
    assert left in replaced_by and killed not in replaced_by
    assert exit_code == 0


async def test_a_router_whose_only_worker_is_killed_ends_and_says_so(start_router: StartRouter, tmp_path: Path) -> None:
    async with start_router(tmp_path) as router:
        os.kill(workers_of(router)[0], signal.SIGKILL)
        exit_code = await asyncio.to_thread(router.process.wait, 20)

    assert exit_code == 1
    assert "a worker ended" in router.log.read_text()


async def test_a_router_whose_replacements_cannot_live_ends(start_router: StartRouter, tmp_path: Path) -> None:
    async with start_router(tmp_path, TOLLGATE_ROUTER_WORKERS="2") as router:
        workers = set(workers_of(router))
        os.kill(min(workers), signal.SIGKILL)
        while not (replacements := set(workers_of(router)) - workers):  # noqa: ASYNC110 there is no event
            await asyncio.sleep(0.01)
        workers |= replacements
        os.kill(replacements.pop(), signal.SIGKILL)
        exit_code = await asyncio.to_thread(router.process.wait, 20)

    assert exit_code == 1
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


SUPERVISE = """
import os, signal, sys, time
from types import SimpleNamespace
from services.router import supervisor

def work(settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN if {is_stuck} else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, supervisor._SIGNALS)
    if {is_stuck}:
        print("started", flush=True)
    time.sleep(15)

class Supervisor(supervisor.Supervisor):
    def _start_one(self, **how):
        super()._start_one(**how)
        if not {is_stuck}:
            os.kill(os.getpid(), signal.SIGTERM)

supervisor._work = work
supervisor.STOP_SECONDS = {stop_seconds}
settings = SimpleNamespace(worker_count=2, drain_notice_seconds=0, grpc=SimpleNamespace(drain_seconds=0))
sys.exit(Supervisor(settings).run())
"""


def test_workers_that_do_not_stop_are_killed() -> None:
    script = SUPERVISE.format(is_stuck=True, stop_seconds=0.3)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_no_worker_is_started_after_the_signal_to_stop() -> None:
    # It would not be told.
    script = SUPERVISE.format(is_stuck=False, stop_seconds=30)

    assert subprocess.run([sys.executable, "-c", script], timeout=10, check=False).returncode == 0


def test_a_worker_whose_parent_is_killed_while_it_starts_ends_too() -> None:
    script = """
import sys, time
from types import SimpleNamespace
from services.router import supervisor, worker

def work(settings):
    print("started", flush=True)
    time.sleep(0.3)
    worker._die_with_parent()
    print("lives on", flush=True)
    time.sleep(15)

supervisor._work = work
supervisor.Supervisor(SimpleNamespace(worker_count=1)).run()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        # Until nobody is there who could write more.
        assert process.stdout.read() == b""


def test_a_worker_may_open_as_many_files_as_it_can_get() -> None:
    # Or a thousand idle connections, where that is what a process gets, would keep calls from providers and spool.
    script = """
import resource
from services.router import worker

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
worker._take_many_files()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, 512)
"""

    assert subprocess.run([sys.executable, "-c", script], timeout=20, check=False).returncode == 0


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


def test_the_supervisor_loads_nothing_of_what_its_workers_do() -> None:
    script = "import sys, services.router.__main__; sys.exit('services.router.wiring' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
