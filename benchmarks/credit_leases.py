"""What leasing credit costs the router: CPU time per call that credit pays for, beside the same call by an own key.

    python -m benchmarks.credit_leases

One worker with everything on, and an organization with plenty of credit, so that its lease is renewed and never waited
for. Calls that an own provider key pays for reserve nothing and are the same otherwise. On a machine with other work a
single comparison is off by a tenth, so both take many short turns: what counts is the median of what neighbours differ
by, with its standard error. CPU time is of the router's processes, all threads, from /proc, to the nanosecond.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from pyreqwest.client import Client, ClientBuilder

from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.conftest import PROVIDERS
from tests.integration.router.fake_ledger import SERVICE_TOKEN, FakeLedger
from tests.integration.router.processes import free_address, running
from tollgate.ledger.v1 import directory_service_pb2

TURNS = 300
CALLS_PER_TURN = 200
WARM_UP_TURNS = 10
CONCURRENCY = 64
GOAL_PERCENT = 5
BODY = orjson.dumps(
    {"model": "gpt-4o", "messages": [{"role": "user", "content": "What does a toll gate do, and why?"}]}
)


def cpu_seconds(parent: int) -> float:
    """Of a process and its children, all threads."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    stats = (path for pid in [parent, *children] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in stats) / 1e9


async def turn(client: Client, url: str, key: str, router_pid: int) -> float:
    """CPU microseconds per call."""
    left = iter(range(CALLS_PER_TURN))

    async def work() -> None:
        for _ in left:
            request = client.post(url).header("authorization", f"Bearer {key}").body_bytes(BODY)
            response = await request.build().send()
            assert response.status == 200, await response.text()

    before = cpu_seconds(router_pid)
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return (cpu_seconds(router_pid) - before) / CALLS_PER_TURN * 1e6


async def measure(client: Client, url: str, credit_key: str, own_key: str, router_pid: int) -> None:
    keys = (credit_key, own_key)
    for _ in range(WARM_UP_TURNS):
        for key in keys:
            await turn(client, url, key, router_pid)
    # Who goes first changes with each pair.
    pairs = []
    for number in range(TURNS):
        first, second = keys if number % 2 == 0 else keys[::-1]
        found = {first: await turn(client, url, first, router_pid)}
        found[second] = await turn(client, url, second, router_pid)
        pairs.append((found[credit_key], found[own_key]))
    credit, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    lower, median, upper = statistics.quantiles([(one / other - 1) * 100 for one, other in pairs], n=4)
    # That of a median of values that are spread like the normal distribution.
    error = 1.2533 * (upper - lower) / 1.349 / TURNS**0.5
    print(f"| call that credit pays for | {credit:.0f} µs CPU | |")
    print(f"| the same call by an own key | {own:.0f} µs CPU | |")
    verdict = "met" if median <= GOAL_PERCENT else "MISSED"
    print(f"| leasing, of a call | {median:.1f} ± {error:.1f} % | ≤ {GOAL_PERCENT} % {verdict} |")


@contextmanager
def running_router(directory: Path, ledger: FakeLedger, keys: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Its address and its process id, beside a simulated provider."""
    simulator, http = free_address(), free_address()
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
    health, log = f"http://{simulator}/health", directory / "simulator.log"
    with (
        running("development.simulator", {"TOLLGATE_SIMULATOR_ADDRESS": simulator}, health, log),
        running("services.router", environment, f"http://{http}/health", directory / "router.log") as router,
    ):
        yield http, router.pid


async def main() -> None:
    keys = new_key_settings()
    ledger = FakeLedger(free_address(), read_public_key(Environment(keys)))
    await ledger.start()
    own_keys = directory_service_pb2.PROJECT_MODE_OWN_KEYS
    with tempfile.TemporaryDirectory() as name, running_router(Path(name), ledger, keys) as (address, router_pid):
        async with ClientBuilder().no_proxy().build() as client:
            own_key = ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=own_keys)
            await measure(client, f"http://{address}/v1/chat/completions", ledger.grant(), own_key, router_pid)
    await ledger.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
