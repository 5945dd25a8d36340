"""Everything on one machine, through Envoy: how fast calls become cost lines, when they are seen, and what they cost.

    python -m benchmarks.whole_system

Starts PostgreSQL, ledger, reporting, router with one worker, Envoy and a simulated provider as `make run` does, with
everything on: authentication, limits, leases of credit, durable records, metrics, logs, fsync. Every call is a plain
chat completion that credit pays for, answered at once by the provider.

1. As fast as they go, 64 at a time: from the first call to the last committed cost line. CPU and disk are counted
   over the same calls, and end with that commit.
2. Paced: how long after a call's last byte `GET /activity` counts it, asked again and again until it does.
"""

import asyncio
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import psycopg
from pyreqwest.client import Client, ClientBuilder

from benchmarks.figures import report
from benchmarks.load import Caller, paced, percentile, saturate
from benchmarks.processes import ProcessTree
from development.addresses import Addresses
from development.stack import DATABASE, PROVIDERS, Stack
from development.state import State

ORGANIZATION_COUNT = 10
WARM_UP_CALLS = 2_000
CALLS = 15_000
CONCURRENCY = 64
PACED_CALLS_PER_SECOND = 50
SEEN_CALLS = 240
# Calls that are looked for at the same time, each of an organization of its own.
WATCHERS = 4
POLL_SECONDS = 0.01
COMMIT_SECONDS_MAX = 60
SEEN_SECONDS_MAX = 20
LIMITS = """
[limits.key]
requests_per_minute = 100000000
tokens_per_minute = 1000000000000
"""
# By the table's own name, or that of the one it is a partition of; everything else is the books.
KIND_BY_TABLE = {
    **dict.fromkeys(("usage_record", "payload"), "detail"),
    "record_key": "keys that make retries harmless",
    **dict.fromkeys(("usage_hour", "usage_day", "latency_day", "failure_day"), "rollups"),
    **dict.fromkeys(("money_day", "record_day"), "rollups"),
}
SIZES = """
    SELECT coalesce(parent.relname, c.relname), sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint
      FROM pg_class AS c
      LEFT JOIN pg_inherits ON inhrelid = c.oid
      LEFT JOIN pg_class AS parent ON parent.oid = pg_partition_root(c.oid)
     WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r'
     GROUP BY 1
"""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spent:
    """What had been spent by a moment: CPU seconds by service, bytes by kind of file."""

    cpu_seconds: dict[str, float]
    disk_bytes: dict[str, int]


class System:
    """A running stack and its customers, as the benchmark sees them."""

    def __init__(self, stack: Stack, client: Client, database: psycopg.Connection) -> None:
        self._stack = stack
        self._client = client
        self._database = database
        assert stack.postgres is not None
        pids = {"PostgreSQL": stack.postgres.pid, **{name: each.pid for name, each in stack.processes.items()}}
        self._trees = {name: ProcessTree(pid) for name, pid in pids.items() if pid is not None}

    async def add_customer(self, name: str) -> "Customer":
        """An organization with credit, a project, and a key bound to it."""
        made = await self._post("v1/organizations", display_name=name)
        own = {"organization_id": made["organization"]["organization_id"]}
        await self._post("v1/projects", **own, project_id="web")
        await self._post("v1/credit_grants", **own, grant_id="first", amount="1000")
        key = await self._post("v1/api_keys", **own, project_id="web")
        return Customer(self._client, self._stack.url, key["secret"])

    async def _post(self, path: str, **body: object) -> Json:
        request = self._client.post(f"{self._stack.url}/{path}").body_json(body)
        return await _answered(request.header("authorization", f"Bearer {self._stack.secrets.operator_key}"))

    async def wait_for_commit(self, record_count: int) -> None:
        """Returns when so many calls have their cost lines in the books."""
        async with asyncio.timeout(COMMIT_SECONDS_MAX):
            while self._one("SELECT sum(record_count) FROM ledger.record_day") < record_count:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)

    def spent(self) -> Spent:
        cpu_seconds = {name: tree.cpu_seconds() for name, tree in self._trees.items()}
        cpu_seconds["client"] = sum(os.times()[:2])
        logs = sum(path.stat().st_size for path in (self._stack.state.directory / "logs").iterdir())
        disk_bytes = {"logs": logs, "WAL": int(self._one("SELECT pg_current_wal_insert_lsn() - '0/0'"))}
        # The router writes nothing else but its log.
        router_log = self._stack.state.log("router").stat().st_size
        disk_bytes["spool, written"] = self._trees["router"].written_bytes() - router_log
        for table, table_bytes, index_bytes in self._database.execute(SIZES):
            kind = KIND_BY_TABLE.get(table, "books")
            disk_bytes[kind] = disk_bytes.get(kind, 0) + table_bytes
            disk_bytes["indexes"] = disk_bytes.get("indexes", 0) + index_bytes
        return Spent(cpu_seconds, disk_bytes)

    def _one(self, query: str) -> Decimal:
        row = self._database.execute(query.encode()).fetchone()
        return row[0] if row and row[0] is not None else Decimal(0)


class Customer:
    """A caller that also asks for its activity."""

    def __init__(self, client: Client, url: str, key: str) -> None:
        self.caller = Caller(client, url, key)
        self._client = client
        self._activity_url = f"{url}/activity?days=2"
        self._key = key

    async def seconds_until_seen(self) -> float:
        """Makes a call; how long after its last byte the activity counts it."""
        before = await self._call_count()
        await self.caller.plain()
        start = time.perf_counter()
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            while await self._call_count() <= before:  # noqa: ASYNC110 we ask as a client would
                await asyncio.sleep(POLL_SECONDS)
        return time.perf_counter() - start

    async def _call_count(self) -> int:
        request = self._client.get(self._activity_url).header("authorization", f"Bearer {self._key}")
        return sum(day["requestCount"] for day in (await _answered(request))["activity"])


async def _answered(request: Any) -> Json:
    answer = await request.build().send()
    body = bytes(await answer.bytes())
    assert answer.status == 200, body
    found: Json = orjson.loads(body)
    return found


async def measure_throughput(system: System, customers: list[Customer]) -> None:
    turns = [customer.caller for customer in customers]
    await saturate(turns, WARM_UP_CALLS, CONCURRENCY)
    await system.wait_for_commit(WARM_UP_CALLS)
    before, start = system.spent(), time.perf_counter()
    await saturate(turns, CALLS, CONCURRENCY)
    answered_seconds = time.perf_counter() - start
    await system.wait_for_commit(WARM_UP_CALLS + CALLS)
    seconds, after = time.perf_counter() - start, system.spent()
    report("calls from client to committed cost line", CALLS / seconds, "calls/s")
    report("last cost line committed after the last answer", (seconds - answered_seconds) * 1000, "ms")
    _report_cost(before, after)


def _report_cost(before: Spent, after: Spent) -> None:
    cpu = {name: spent - before.cpu_seconds[name] for name, spent in after.cpu_seconds.items()}
    for name, cpu_seconds in sorted(cpu.items(), key=lambda each: -each[1]):
        report(f"CPU per million calls, {name}", cpu_seconds / CALLS * 1e6, "s")
    ours = sum(cpu.values()) - cpu["client"] - cpu["simulator"]
    report("CPU per million calls, all but client and simulator", ours / CALLS * 1e6, "s")
    disk = {kind: size - before.disk_bytes[kind] for kind, size in after.disk_bytes.items()}
    for kind, size in sorted(disk.items(), key=lambda each: -each[1]):
        report(f"disk per million calls, {kind}", size / CALLS * 1e6 / 2**20, "MiB")


async def measure_visibility(callers: list[Caller], watchers: list[Customer]) -> None:
    """While other organizations call at a steady rate."""

    async def watch(watcher: Customer) -> list[float]:
        return [await watcher.seconds_until_seen() for _ in range(SEEN_CALLS // WATCHERS)]

    async def until_cancelled() -> None:
        while True:
            await paced(callers, PACED_CALLS_PER_SECOND, seconds=1)

    others = asyncio.ensure_future(until_cancelled())
    waits = [wait for waits in await asyncio.gather(*map(watch, watchers)) for wait in waits]
    others.cancel()
    with suppress(asyncio.CancelledError):
        await others
    for percent in (50, 99):
        report(f"last byte to GET /activity, p{percent}", percentile(waits, percent) * 1000, "ms", at_most=2000)


async def measure(stack: Stack, database: psycopg.Connection) -> None:
    async with ClientBuilder().no_proxy().build() as client:
        system = System(stack, client, database)
        customers = [await system.add_customer(f"Customer {number}") for number in range(ORGANIZATION_COUNT)]
        watchers = [await system.add_customer(f"Watcher {number}") for number in range(WATCHERS)]
        await measure_throughput(system, customers)
        await measure_visibility([customer.caller for customer in customers], watchers)


async def main(directory: Path) -> None:
    """Runs in the directory, which others may enter."""
    addresses = Addresses.free()
    providers = directory / "limited.toml"
    providers.write_text(LIMITS + PROVIDERS.read_text().replace("127.0.0.1:8099", addresses.simulator))
    stack = Stack(State(directory), addresses, router_environment={"TOLLGATE_PROVIDERS_FILE": str(providers)})
    try:
        await stack.start()
        assert stack.postgres is not None, "measures a PostgreSQL of its own; unset TOLLGATE_DATABASE_URL"
        with psycopg.connect(stack.postgres.url(DATABASE), autocommit=True) as database:
            await measure(stack, database)
    finally:
        await stack.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        Path(name).chmod(0o755)  # as root, PostgreSQL runs as another user
        asyncio.run(main(Path(name)))
