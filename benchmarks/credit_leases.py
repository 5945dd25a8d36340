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
from contextlib import ExitStack
from pathlib import Path

from pyreqwest.client import ClientBuilder

from benchmarks.figures import report
from benchmarks.load import Caller, saturate
from benchmarks.router_calls import running_router
from development.addresses import free_address
from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import running
from tollgate.ledger.v1 import directory_service_pb2

TURNS = 200
CALLS_PER_TURN = 200
WARM_UP_TURNS = 10
CONCURRENCY = 64
GOAL_PERCENT = 5


def cpu_seconds(parent: int) -> float:
    """Of a process and its children, all threads."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    stats = (path for pid in [parent, *children] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in stats) / 1e9


async def turn(caller: Caller, router_pid: int) -> float:
    """CPU microseconds per call."""
    before = cpu_seconds(router_pid)
    await saturate([caller], CALLS_PER_TURN, CONCURRENCY)
    return (cpu_seconds(router_pid) - before) / CALLS_PER_TURN * 1e6


async def measure(by_credit: Caller, by_own_key: Caller, router_pid: int) -> None:
    callers = (by_credit, by_own_key)
    for _ in range(WARM_UP_TURNS):
        for caller in callers:
            await turn(caller, router_pid)
    # Who goes first changes with each pair.
    pairs = []
    for number in range(TURNS):
        first, second = callers if number % 2 == 0 else callers[::-1]
        found = {first: await turn(first, router_pid)}
        found[second] = await turn(second, router_pid)
        pairs.append((found[by_credit], found[by_own_key]))
    credit, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    lower, median, upper = statistics.quantiles([(one / other - 1) * 100 for one, other in pairs], n=4)
    report("call that credit pays for: CPU", credit, "µs")
    report("the same call by an own key: CPU", own, "µs")
    report("leasing, of a call", median, "%", at_most=GOAL_PERCENT)
    # Of the median of values that are spread like the normal distribution.
    report("its standard error", 1.2533 * (upper - lower) / 1.349 / TURNS**0.5, "%")


async def main() -> None:
    keys = new_key_settings()
    ledger = FakeLedger(free_address(), read_public_key(Environment(keys)))
    await ledger.start()
    own_keys = directory_service_pb2.PROJECT_MODE_OWN_KEYS
    with ExitStack() as started:
        directory = Path(started.enter_context(tempfile.TemporaryDirectory()))
        simulator, http = free_address(), free_address()
        health, log = f"http://{simulator}/health", directory / "simulator.log"
        started.enter_context(running("development.simulator", {"TOLLGATE_SIMULATOR_ADDRESS": simulator}, health, log))
        router_pid = started.enter_context(running_router(directory, http, simulator, ledger.address, keys))
        async with ClientBuilder().no_proxy().build() as client:
            own_key = ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=own_keys)
            by_credit, by_own_key = (Caller(client, f"http://{http}", key) for key in (ledger.grant(), own_key))
            await measure(by_credit, by_own_key, router_pid)
    await ledger.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
