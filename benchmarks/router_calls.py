"""What a call costs the router: CPU time of its processes per plain call and per streamed chunk, and latency added.

    python -m benchmarks.router_calls

Starts a simulated provider, a ledger that answers directory and usage calls, and a router with one worker; everything
is on: authentication, routing, durable records, metrics, log. CPU time is read from /proc, so the load generator, the
provider and the ledger do not count, whatever they need.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.request import RequestBuilder

from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.conftest import PROVIDERS
from tests.integration.router.fake_ledger import SERVICE_TOKEN, FakeLedger
from tests.integration.router.processes import free_address, running

PLAIN_CALLS = 6_000
PLAIN_CONCURRENCY = 64
STREAMS = 64
TOKENS_PER_STREAM = 400
CHUNK_MILLISECONDS = 5
PACED_CALLS_PER_SECOND = 300
PACED_SECONDS = 5


class Processes:
    """The router's processes: supervisor and worker."""

    def __init__(self, supervisor: int) -> None:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        self._pids = [supervisor, *map(int, children)]

    def cpu_seconds(self) -> float:
        return sum(self._cpu_seconds(pid) for pid in self._pids)

    def memory_mib(self) -> list[int]:
        """Resident memory of each."""
        return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20 for pid in self._pids]

    @staticmethod
    def _cpu_seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Caller:
    """A client of one router."""

    def __init__(self, client: Client, url: str, key: str) -> None:
        self._client = client
        self._url = f"{url}/v1/chat/completions"
        self._key = key

    async def plain(self) -> float:
        """One call; how long it took, in seconds."""
        start = time.perf_counter()
        body = _body("What does a toll gate do, and why?")
        response = await self._request(body).build().send()
        await response.bytes()
        assert response.status == 200, await response.text()
        return time.perf_counter() - start

    async def stream(self) -> int:
        """One stream; how many chunks came."""
        body = _body(f"simulate:tokens={TOKENS_PER_STREAM} simulate:chunk_ms={CHUNK_MILLISECONDS}", stream=True)
        count = 0
        async with self._request(body).streamed_read_buffer_limit(0).build_streamed() as response:
            while await response.body_reader.read_chunk() is not None:
                count += 1
        return count

    def _request(self, body: bytes) -> RequestBuilder:
        return self._client.post(self._url).header("authorization", f"Bearer {self._key}").body_bytes(body)


def _body(prompt: str, **members: object) -> bytes:
    return orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **members})


async def saturate(call: Callable[[], Awaitable[object]], count: int, concurrency: int) -> None:
    """Makes `count` calls, always `concurrency` at a time."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def paced(call: Callable[[], Awaitable[float]]) -> list[float]:
    """Calls at a steady rate, whether answered or not; how long each took."""
    start = time.perf_counter()
    tasks = []
    for number in range(PACED_CALLS_PER_SECOND * PACED_SECONDS):
        await asyncio.sleep(max(0.0, start + number / PACED_CALLS_PER_SECOND - time.perf_counter()))
        tasks.append(asyncio.ensure_future(call()))
    return list(await asyncio.gather(*tasks))


async def measure(caller: Caller, direct: Caller, processes: Processes) -> None:
    await saturate(caller.plain, PLAIN_CALLS // 10, PLAIN_CONCURRENCY)  # warms up
    cpu, start = processes.cpu_seconds(), time.perf_counter()
    await saturate(caller.plain, PLAIN_CALLS, PLAIN_CONCURRENCY)
    per_call = (processes.cpu_seconds() - cpu) / PLAIN_CALLS
    print(f"plain call        {per_call * 1000:.3f} ms CPU, {PLAIN_CALLS / (time.perf_counter() - start):.0f} calls/s")

    cpu = processes.cpu_seconds()
    chunks = sum(await asyncio.gather(*(caller.stream() for _ in range(STREAMS))))
    print(f"streamed chunk    {(processes.cpu_seconds() - cpu) / chunks * 1000:.4f} ms CPU, {chunks} chunks")

    through, without = await paced(caller.plain), await paced(direct.plain)
    for name, quantile in (("p50", 50), ("p99", 99)):
        added = _percentile(through, quantile) - _percentile(without, quantile)
        print(f"added latency {name} {added * 1000:.2f} ms at {PACED_CALLS_PER_SECOND} calls/s")
    print(f"memory            {' + '.join(map(str, processes.memory_mib()))} MiB (supervisor + worker)")


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


async def main() -> None:
    keys = new_key_settings()
    simulator, http = free_address(), free_address()
    ledger = FakeLedger(free_address(), read_public_key(Environment(keys)))
    await ledger.start()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        providers = directory / "providers.toml"
        providers.write_text(PROVIDERS.format(simulator=simulator, nobody=free_address()))
        environment = {
            "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
            "TOLLGATE_LEDGER_ADDRESS": ledger.address,
            "TOLLGATE_ROUTER_HTTP_ADDRESS": http,
            "TOLLGATE_ROUTER_GRPC_ADDRESS": free_address(),
            "TOLLGATE_ROUTER_METRICS_ADDRESS": free_address(),
            "TOLLGATE_SPOOL_DIRECTORY": str(directory / "spool"),
            "TOLLGATE_PROVIDERS_FILE": str(providers),
            "SIMULATOR_API_KEY": "simulated",
            "WRONG_API_KEY": "wrong",
            **keys,
        }
        with (
            running(
                "development.simulator",
                {"TOLLGATE_SIMULATOR_ADDRESS": simulator},
                f"http://{simulator}/health",
                directory / "simulator.log",
            ),
            running("services.router", environment, f"http://{http}/health", directory / "router.log") as router,
        ):
            async with ClientBuilder().no_proxy().build() as client:
                caller = Caller(client, f"http://{http}", ledger.grant())
                direct = Caller(client, f"http://{simulator}/openai", "simulated")
                await measure(caller, direct, Processes(router.pid))
    await ledger.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
