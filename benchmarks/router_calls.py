"""What a call costs the router, beside Envoy alone and two other gateways, all against one provider, in one run.

    python -m benchmarks.router_calls [--ours]

Starts a simulated provider, a ledger that answers directory, credit and usage calls, a router with one worker, an Envoy
that does nothing but proxy, LiteLLM's proxy and Portkey's gateway. Everything is on in the router: authentication,
limits, leases of credit, routing, durable records, metrics, log. CPU time is of the gateway's processes, so the load
generator, the provider and the ledger do not count, whatever they need. The gateways take turns, and the median of the
rounds counts: on a shared machine a single figure varies by a fifth. `--ours` leaves the other gateways out.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyreqwest.client import Client, ClientBuilder

from benchmarks.envoy_alone import running_envoy
from benchmarks.figures import report, report_unmeasured
from benchmarks.load import Caller, paced, percentile, saturate, stream_together
from benchmarks.other_gateways import (
    LITELLM_KEY,
    NotAvailableError,
    portkey_headers,
    running_litellm,
    running_portkey,
)
from benchmarks.processes import ProcessTree
from development.addresses import free_address
from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.conftest import PROVIDERS
from tests.integration.router.fake_ledger import SERVICE_TOKEN, FakeLedger
from tests.integration.router.processes import running

ROUNDS = 3
CONCURRENCY = 64
CHUNK_MILLISECONDS = 5
PACED_CALLS_PER_SECOND = 300
# For who cannot do that many.
SLOW_CALLS_PER_SECOND = 50
PACED_SECONDS = 5
OPEN_STREAMS = 1_000
OPEN_STREAM_TOKENS = 40
OPEN_STREAM_CHUNK_MILLISECONDS = 500
OPEN_STREAMS_SECONDS_MAX = 90
POLICIES = """
[limits.key]
requests_per_minute = 100000000
tokens_per_minute = 1000000000000
"""


@dataclass(slots=True)
class Gateway:
    """One that is measured, and what was found in each round."""

    name: str
    caller: Caller
    processes: ProcessTree
    # In each round. Who is slow gets fewer, so that the rounds are equally long.
    plain_calls: int
    stream_tokens: int
    plain_ms: list[float] = field(default_factory=list)
    chunk_ms: list[float] = field(default_factory=list)
    calls_per_second: list[float] = field(default_factory=list)

    async def warm_up(self) -> None:
        await saturate([self.caller], self.plain_calls // 4, CONCURRENCY)

    async def measure_round(self) -> None:
        """CPU per plain call and per streamed chunk of one token, at saturation."""
        cpu, start = self.processes.cpu_seconds(), time.perf_counter()
        await saturate([self.caller], self.plain_calls, CONCURRENCY)
        self.calls_per_second.append(self.plain_calls / (time.perf_counter() - start))
        self.plain_ms.append((self.processes.cpu_seconds() - cpu) / self.plain_calls * 1000)

        cpu = self.processes.cpu_seconds()
        await stream_together(self.caller, CONCURRENCY, self.stream_tokens, CHUNK_MILLISECONDS)
        self.chunk_ms.append((self.processes.cpu_seconds() - cpu) / (CONCURRENCY * self.stream_tokens) * 1000)


async def measure(gateways: list[Gateway], direct: Caller) -> None:
    """The first is ours, the second the one that all are compared with."""
    ours, floor = gateways[:2]
    gateways = await _those_that_can(Gateway.warm_up, gateways)
    for _ in range(ROUNDS):
        gateways = await _those_that_can(Gateway.measure_round, gateways)
    for gateway in gateways:
        report_cost(gateway, floor, is_ours=gateway is ours)
    without: dict[int, list[float]] = {}
    gateways = await _those_that_can(
        lambda gateway: measure_latency(gateway, direct, without, is_ours=gateway is ours), gateways
    )
    for gateway in gateways:
        await measure_memory(gateway, is_ours=gateway is ours)


async def _those_that_can(step: Callable[[Gateway], Awaitable[None]], gateways: Sequence[Gateway]) -> list[Gateway]:
    """Takes the step with each. Another gateway that fails calls is left out from then on; ours may not."""
    able = []
    for number, gateway in enumerate(gateways):
        try:
            await step(gateway)
        except ExceptionGroup as error:
            if number < 2:
                raise
            report_unmeasured(f"{gateway.name}: all that follows", f"it fails calls: {error.exceptions[0]!r}")
        else:
            able.append(gateway)
    return able


def report_cost(gateway: Gateway, floor: Gateway, *, is_ours: bool) -> None:
    median = statistics.median
    name, plain_ms, chunk_ms = gateway.name, median(gateway.plain_ms), median(gateway.chunk_ms)
    report(f"{name}: CPU per plain call", plain_ms, "ms")
    report(f"{name}: CPU per streamed chunk", chunk_ms, "ms")
    report(f"{name}: plain calls, {CONCURRENCY} at once", median(gateway.calls_per_second), "calls/s")
    if gateway is not floor:
        plain_goal, chunk_goal = (5, 2) if is_ours else (None, None)
        report(f"{name}: plain call ÷ {floor.name}", plain_ms / median(floor.plain_ms), at_most=plain_goal)
        report(f"{name}: streamed chunk ÷ {floor.name}", chunk_ms / median(floor.chunk_ms), at_most=chunk_goal)


async def measure_latency(gateway: Gateway, direct: Caller, without: dict[int, list[float]], *, is_ours: bool) -> None:
    """What it adds to a call without it, at a rate that it can do with room to spare."""
    is_slow = statistics.median(gateway.calls_per_second) < PACED_CALLS_PER_SECOND * 1.2
    rate = SLOW_CALLS_PER_SECOND if is_slow else PACED_CALLS_PER_SECOND
    if rate not in without:
        without[rate] = await paced([direct], rate, PACED_SECONDS)
    through = await paced([gateway.caller], rate, PACED_SECONDS)
    for percent in (50, 95, 99):
        added_ms = (percentile(through, percent) - percentile(without[rate], percent)) * 1000
        goal = 10 if is_ours and percent == 99 else None
        report(f"{gateway.name}: added latency p{percent} at {rate} calls/s", added_ms, "ms", at_most=goal)


async def measure_memory(gateway: Gateway, *, is_ours: bool) -> None:
    """The largest process before, and the most it takes while streams are open."""
    before = most = max(gateway.processes.memory_mib())
    what = f"{gateway.name}: memory with {OPEN_STREAMS:,} open streams"
    streams = asyncio.ensure_future(
        stream_together(gateway.caller, OPEN_STREAMS, OPEN_STREAM_TOKENS, OPEN_STREAM_CHUNK_MILLISECONDS)
    )
    try:
        async with asyncio.timeout(OPEN_STREAMS_SECONDS_MAX):
            while not streams.done():
                await asyncio.sleep(0.5)
                most = max(most, *gateway.processes.memory_mib())
            await streams
    except (TimeoutError, ExceptionGroup) as error:
        streams.cancel()
        report_unmeasured(what, f"streams broke off or took longer than {OPEN_STREAMS_SECONDS_MAX} s: {error!r}")
        return
    report(f"{gateway.name}: memory before", before, "MiB")
    report(what, most, "MiB", at_most=150 if is_ours else None)


@contextmanager
def running_router(
    directory: Path, listen: str, simulator: str, ledger_address: str, keys: Mapping[str, str]
) -> Iterator[int]:
    """Its process id."""
    providers = directory / "providers.toml"
    providers.write_text(POLICIES + PROVIDERS.format(simulator=simulator, nobody=free_address()))
    environment = {
        "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
        "TOLLGATE_LEDGER_ADDRESS": ledger_address,
        "TOLLGATE_ROUTER_HTTP_ADDRESS": listen,
        "TOLLGATE_ROUTER_GRPC_ADDRESS": free_address(),
        "TOLLGATE_ROUTER_METRICS_ADDRESS": free_address(),
        "TOLLGATE_SPOOL_DIRECTORY": str(directory / "spool"),
        "TOLLGATE_PROVIDERS_FILE": str(providers),
        "SIMULATOR_API_KEY": "simulated",
        "WRONG_API_KEY": "wrong",
        **keys,
    }
    with running("services.router", environment, f"http://{listen}/health", directory / "router.log") as process:
        yield process.pid


def others(started: ExitStack, directory: Path, client: Client, simulator: str) -> Iterator[Gateway]:
    """LiteLLM and Portkey, where they can be had."""
    try:
        listen = free_address()
        pid = started.enter_context(running_litellm(directory, listen, simulator))
        yield Gateway("LiteLLM", Caller(client, f"http://{listen}", LITELLM_KEY), ProcessTree(pid), 400, 40)
    except NotAvailableError as error:
        report_unmeasured("LiteLLM", str(error))
    try:
        listen = free_address()
        pid = started.enter_context(running_portkey(directory, listen, simulator))
        caller = Caller(client, f"http://{listen}", "simulated", portkey_headers(simulator))
        yield Gateway("Portkey", caller, ProcessTree(pid), 2_000, 200)
    except NotAvailableError as error:
        report_unmeasured("Portkey", str(error))


async def main(*, only_ours: bool) -> None:
    keys = new_key_settings()
    ledger = FakeLedger(free_address(), read_public_key(Environment(keys)))
    await ledger.start()
    with ExitStack() as started:
        directory = Path(started.enter_context(tempfile.TemporaryDirectory()))
        simulator, http, proxy = free_address(), free_address(), free_address()
        health, log = f"http://{simulator}/health", directory / "simulator.log"
        started.enter_context(running("development.simulator", {"TOLLGATE_SIMULATOR_ADDRESS": simulator}, health, log))
        router = started.enter_context(running_router(directory, http, simulator, ledger.address, keys))
        envoy = started.enter_context(running_envoy(directory, proxy, simulator))
        async with ClientBuilder().no_proxy().build() as client:
            gateways = [
                Gateway("Tollgate", Caller(client, f"http://{http}", ledger.grant()), ProcessTree(router), 4_000, 400),
                Gateway(
                    "Envoy alone", Caller(client, f"http://{proxy}/openai", "simulated"), ProcessTree(envoy), 4_000, 400
                ),
            ]
            if not only_ours:
                gateways += others(started, directory, client, simulator)
            await measure(gateways, Caller(client, f"http://{simulator}/openai", "simulated"))
    await ledger.stop()


if __name__ == "__main__":
    asyncio.run(main(only_ours="--ours" in sys.argv[1:]))
