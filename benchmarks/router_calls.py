"""What a call costs the router, beside what it costs Envoy alone: CPU time per plain call and per streamed chunk.

    python -m benchmarks.router_calls

Starts a simulated provider, a ledger that answers directory and usage calls, a router with one worker, and an Envoy
that does nothing but proxy to the same provider. Everything is on in the router: authentication, limits, routing,
durable records, metrics, log. CPU time is read from /proc, so the load generator, the provider and the ledger do not
count, whatever they need. Router and Envoy take turns, and the median of the rounds counts: on a shared machine a
single figure varies by a fifth. Then: the latency that the router adds, and its memory with 1,000 streams open.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.request import RequestBuilder

from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.conftest import PROVIDERS
from tests.integration.router.fake_ledger import SERVICE_TOKEN, FakeLedger
from tests.integration.router.processes import free_address, running

ROUNDS = 3
PLAIN_CALLS = 4_000
PLAIN_CONCURRENCY = 64
STREAMS = 64
TOKENS_PER_STREAM = 400
CHUNK_MILLISECONDS = 5
PACED_CALLS_PER_SECOND = 300
PACED_SECONDS = 5
OPEN_STREAMS = 1_000
_ENVOY = "type.googleapis.com/envoy.extensions"
POLICIES = """
[limits.key]
requests_per_minute = 100000000
tokens_per_minute = 1000000000000
"""


class Processes:
    """A process and its children."""

    def __init__(self, parent: int) -> None:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        self._pids = [parent, *map(int, children)]

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
    """A client of the router, or of whatever stands in its place."""

    def __init__(self, client: Client, url: str, key: str, processes: Processes | None = None) -> None:
        self._client = client
        self.processes = processes
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

    async def stream(self, tokens: int = TOKENS_PER_STREAM, chunk_milliseconds: int = CHUNK_MILLISECONDS) -> int:
        """One stream; how many chunks came."""
        body = _body(f"simulate:tokens={tokens} simulate:chunk_ms={chunk_milliseconds}", stream=True)
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


async def plain_milliseconds(caller: Caller) -> float:
    """CPU per plain call, at saturation."""
    assert caller.processes is not None
    cpu = caller.processes.cpu_seconds()
    await saturate(caller.plain, PLAIN_CALLS, PLAIN_CONCURRENCY)
    return (caller.processes.cpu_seconds() - cpu) / PLAIN_CALLS * 1000


async def chunk_milliseconds(caller: Caller) -> float:
    """CPU per streamed chunk, one token each."""
    assert caller.processes is not None
    cpu = caller.processes.cpu_seconds()
    chunks = sum(await asyncio.gather(*(caller.stream() for _ in range(STREAMS))))
    return (caller.processes.cpu_seconds() - cpu) / chunks * 1000


async def compare(
    name: str, measured: Callable[[Caller], Awaitable[float]], router: Caller, envoy: Caller, goal: float
) -> None:
    rounds = [(await measured(router), await measured(envoy)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{name:16} {ours:.4f} ms CPU, Envoy alone {theirs:.4f} ms: {ours / theirs:.1f} times (goal: {goal:.0f})")


async def measure(router: Caller, envoy: Caller, direct: Caller) -> None:
    for caller in (router, envoy):  # warms up
        await saturate(caller.plain, PLAIN_CALLS // 4, PLAIN_CONCURRENCY)
    await compare("plain call", plain_milliseconds, router, envoy, goal=5)
    await compare("streamed chunk", chunk_milliseconds, router, envoy, goal=2)

    through, without = await paced(router.plain), await paced(direct.plain)
    for name, quantile in (("p50", 50), ("p99", 99)):
        added = _percentile(through, quantile) - _percentile(without, quantile)
        print(f"added latency {name} {added * 1000:.2f} ms at {PACED_CALLS_PER_SECOND} calls/s")
    await measure_memory(router)


async def measure_memory(router: Caller) -> None:
    """The most of the worker while streams are open."""
    assert router.processes is not None
    before = router.processes.memory_mib()
    streams = asyncio.gather(*(router.stream(200, 100) for _ in range(OPEN_STREAMS)))
    most = before
    while not streams.done():
        await asyncio.sleep(0.5)
        most = max(most, router.processes.memory_mib(), key=max)
    assert min(await streams) >= 200
    print(f"memory           {before} MiB before, {most} MiB with {OPEN_STREAMS} streams (supervisor, worker)")


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _envoy_configuration(listen: str, upstream: str) -> bytes:
    """A proxy and nothing else."""
    manager = {
        "@type": f"{_ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "proxy",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_ENVOY}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "front",
        "address": _envoy_address(listen),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _envoy_address(upstream)}}
    limits = {"max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000}
    cluster = {
        "name": "provider",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return orjson.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _envoy_address(address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


@contextmanager
def running_envoy(directory: Path, listen: str, upstream: str) -> Iterator[int]:
    """Envoy with one thread, as the router has one; its process id."""
    configuration = directory / "envoy.json"
    configuration.write_bytes(_envoy_configuration(listen, upstream))
    command = ["envoy", "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen([str(Path(sys.executable).parent / command[0]), *command[1:]], stderr=log)
    try:
        for _ in range(100):
            with suppress(OSError), urllib.request.urlopen(f"http://{listen}/health", timeout=1):
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


async def main() -> None:
    keys = new_key_settings()
    simulator, http, proxy = free_address(), free_address(), free_address()
    ledger = FakeLedger(free_address(), read_public_key(Environment(keys)))
    await ledger.start()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        providers = directory / "providers.toml"
        providers.write_text(POLICIES + PROVIDERS.format(simulator=simulator, nobody=free_address()))
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
            running_envoy(directory, proxy, simulator) as envoy,
        ):
            async with ClientBuilder().no_proxy().build() as client:
                await measure(
                    Caller(client, f"http://{http}", ledger.grant(), Processes(router.pid)),
                    Caller(client, f"http://{proxy}/openai", "simulated", Processes(envoy)),
                    Caller(client, f"http://{simulator}/openai", "simulated"),
                )
    await ledger.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
