"""How fast the ledger records: `python -m benchmarks.ledger_ingest`.

Starts a PostgreSQL and a ledger of its own, with everything on that production has on. A client sends batches of 500
over gRPC with four in flight, spread over fifty organizations and all of one, then batches of other sizes, then single
records from many clients. In the same run the same rows are copied raw: COPY BINARY into a table of the same columns
without keys, checks or partitions, 500 rows a transaction; and the same deliveries are written to a file, with a sync
after each. CPU is measured per process; wall-clock figures of a busy machine say little.
"""

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psutil
import psycopg
from psycopg.types.json import Jsonb

from benchmarks.figures import Row, report
from benchmarks.processes import ProcessTree
from development.addresses import Addresses
from development.postgres import EmbeddedPostgres
from development.processes import Process
from development.readiness import answers_grpc_health
from services.common.grpc_client import open_channel, service_metadata
from services.common.sealed_secrets import PUBLIC_SETTING, new_key_settings
from services.common.uuid7 import new_uuid7
from services.ledger.storage.copy_binary import BEGIN
from tollgate.ledger.v1.usage_pb2 import FUNDING_CREDITS, Attempt, Usage, UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest, RecordUsageResponse

BATCH_SIZE = 500
IN_FLIGHT = 4
# Other sizes of batches, and how many of them are in flight.
OTHER_SHAPES = ((100, 1), (100, 16), (500, 1), (1_000, 4))
CLIENTS = 64
ORGANIZATION_COUNT = 50
RAW_ROWS = 30_000
# More than the runs of batches of 500 write.
RECYCLED_WAL_MIB = 640
MESSAGE_MIB = 16
RAW_COPY = "COPY raw FROM STDIN (FORMAT BINARY)"
DATABASE = "bench"
SERVICE_TOKEN = "benchmark"  # noqa: S105 of a ledger that ends with this program
RECORD_USAGE = "/tollgate.ledger.v1.UsageService/RecordUsage"
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-flash"),
)


@dataclass(slots=True)
class Run:
    """One line of the table, filled in when its work is done."""

    name: str
    record_count: int
    # What it is to reach.
    rate_goal: float | None = None
    seconds: float = 0.0
    ledger_cpu_seconds: float = 0.0
    postgres_cpu_seconds: float = 0.0
    client_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.record_count / self.seconds

    def print(self) -> None:
        report(self.name, self.rate, "records/s", at_least=self.rate_goal)
        cpus = {
            "ledger": self.ledger_cpu_seconds,
            "PostgreSQL": self.postgres_cpu_seconds,
            "client": self.client_cpu_seconds,
        }
        per_record = (f"{who} {cpu / self.record_count * 1e6:.1f}" for who, cpu in cpus.items() if cpu)
        print(Row(f"{self.name}: CPU per record", f"{', '.join(per_record)} µs"), flush=True)


class Meter:
    """Measures what ledger, PostgreSQL and client spend on a run."""

    def __init__(self, postgres: EmbeddedPostgres, ledger_pid: int | None) -> None:
        self._postgres = ProcessTree(postgres.pid)
        self._ledger = None if ledger_pid is None else ProcessTree(ledger_pid)

    @contextmanager
    def measuring(self, name: str, record_count: int, rate_goal: float | None = None) -> Iterator[Run]:
        run = Run(name, record_count, rate_goal)
        before, start = self._cpu_seconds(), time.perf_counter()
        yield run
        run.seconds = time.perf_counter() - start
        spent = [after - earlier for after, earlier in zip(self._cpu_seconds(), before, strict=True)]
        run.ledger_cpu_seconds, run.postgres_cpu_seconds, run.client_cpu_seconds = spent
        run.print()

    def ledger_memory_mib(self) -> int:
        return 0 if self._ledger is None else sum(self._ledger.memory_mib())

    def _cpu_seconds(self) -> list[float]:
        ledger = 0.0 if self._ledger is None else self._ledger.cpu_seconds()
        return [ledger, self._postgres.cpu_seconds(), sum(psutil.Process().cpu_times()[:2])]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ledger_ingest")
    parser.add_argument("--records", type=int, default=60_000, help="records sent in batches, per run")
    parser.add_argument("--singles", type=int, default=6_000, help="records sent one by one")
    arguments = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    directory.chmod(0o755)  # as root, the server runs as another user
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        migrate(postgres)
        leave_wal_to_recycle(postgres)
        spread = asyncio.run(measure_ledger(postgres, directory, arguments.records, arguments.singles))
        raw = copy_by_driver(postgres)
        copy_packed(postgres)
        write_and_sync(directory / "deliveries", arguments.records)
        report("ledger ÷ raw COPY BINARY, packed by the driver", spread.rate / raw.rate, at_least=0.35)
    finally:
        postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


def migrate(postgres: EmbeddedPostgres) -> None:
    postgres.create_database(DATABASE)
    environment = os.environ | {"TOLLGATE_DATABASE_ADMIN_URL": postgres.url(DATABASE)}
    command = [sys.executable, "-m", "services.ledger.storage.migrate"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def leave_wal_to_recycle(postgres: EmbeddedPostgres) -> None:
    """Brings the server to where every server is after its first hours: old files of WAL are there to be written again.

    A new one would have to fill and sync 16 MiB of zeros for each 8,000 records, and all writers wait meanwhile.
    """
    with psycopg.connect(postgres.url(DATABASE), autocommit=True) as connection:
        for _ in range(RECYCLED_WAL_MIB // MESSAGE_MIB):
            connection.execute("SELECT pg_logical_emit_message(false, 'old', repeat('-', %s))", (MESSAGE_MIB << 20,))
        connection.execute("CHECKPOINT")


async def measure_ledger(postgres: EmbeddedPostgres, directory: Path, record_count: int, single_count: int) -> Run:
    """Returns the run of batches that are spread over organizations."""
    addresses = Addresses.free()
    ledger = ledger_process(postgres, addresses, directory)
    await ledger.start()
    organizations = add_organizations(postgres)
    meter = Meter(postgres, ledger.pid)
    try:
        async with open_channel(addresses.ledger) as channel:

            async def measure(size: int, in_flight: int, count: int, among: Sequence[str], goal: float | None) -> Run:
                whose = "one organization" if len(among) == 1 else f"{len(among)} organizations"
                requests = batches(count, among, size)
                with meter.measuring(f"batches of {size}, {in_flight} in flight, {whose}", count, goal) as run:
                    await send(channel, requests, in_flight)
                return run

            # What is made when the ledger first needs it: prepared statements, prices in the form they are used in.
            await send(channel, batches(4 * BATCH_SIZE, organizations), IN_FLIGHT)
            spread = await measure(BATCH_SIZE, IN_FLIGHT, record_count, organizations, 15_000)
            await measure(BATCH_SIZE, IN_FLIGHT, record_count, organizations[:1], 12_000)
            for size, in_flight in OTHER_SHAPES:
                for among in (organizations, organizations[:1]):
                    await measure(size, in_flight, record_count // 3, among, None)
            requests = [serialized([a_record(organizations)]) for _ in range(single_count)]
            with meter.measuring(f"single records from {CLIENTS} clients", single_count, 1_000):
                await send(channel, requests, CLIENTS)
        report("memory of the ledger, both processes", meter.ledger_memory_mib(), "MiB", at_most=250)
    finally:
        await ledger.stop()
    return spread


def ledger_process(postgres: EmbeddedPostgres, addresses: Addresses, directory: Path) -> Process:
    environment = {
        "TOLLGATE_DATABASE_URL": postgres.url(DATABASE, "tollgate_ledger"),
        "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
        "TOLLGATE_LEDGER_ADDRESS": addresses.ledger,
        "TOLLGATE_LEDGER_METRICS_ADDRESS": addresses.ledger_metrics,
        PUBLIC_SETTING: new_key_settings()[PUBLIC_SETTING],
    }
    command = [sys.executable, "-m", "services.ledger"]
    is_ready = answers_grpc_health(addresses.ledger)
    return Process("ledger", command, environment, directory / "ledger.log", is_ready)


def add_organizations(postgres: EmbeddedPostgres) -> list[str]:
    ids = [str(new_uuid7()) for _ in range(ORGANIZATION_COUNT)]
    with psycopg.connect(postgres.url(DATABASE, "tollgate_ledger"), autocommit=True) as connection:
        statement = "INSERT INTO ledger.organization VALUES (%s, 'Acme', %s, 90, true, now())"
        connection.cursor().executemany(statement, [(one, 1 + number % 3) for number, one in enumerate(ids)])
    return ids


def a_record(organizations: Sequence[str]) -> UsageRecord:
    """An ordinary call: a cached prompt, one attempt, some metadata, payloads retained."""
    organization = random.randrange(len(organizations))
    provider, model = random.choice(MODELS)
    input_tokens = random.randrange(200, 20_000)
    record = UsageRecord(
        request_id=str(new_uuid7()),
        organization_id=organizations[organization],
        project_id=random.choice(("web", "batch")),
        api_key_id=f"5f0c7c2e-0000-4000-8000-{organization:012d}",
        endpoint=1,  # type: ignore[arg-type]
        requested_model=model,
        model=model,
        provider=provider,
        latency_ms=random.randrange(200, 9_000),
        time_to_first_token_ms=random.randrange(100, 900),
        outcome=1,  # type: ignore[arg-type]
        status=200,
        funding=FUNDING_CREDITS,
        usage=Usage(
            input_tokens=input_tokens,
            cached_input_tokens=input_tokens // 3,
            output_tokens=random.randrange(10, 2_000),
            reasoning_tokens=random.randrange(10),
        ),
        usage_source=1,  # type: ignore[arg-type]
        streamed=random.random() < 0.5,
        metadata={"user": f"user-{random.randrange(1_000)}"},
        attempts=[
            Attempt(provider=provider, upstream_model=model, funding=FUNDING_CREDITS, status=200, latency_ms=800)
        ],
        payload_retained=True,
    )
    record.start_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=random.randrange(60)))
    return record


def batches(record_count: int, organizations: Sequence[str], size: int = BATCH_SIZE) -> list[bytes]:
    return [
        serialized([a_record(organizations) for _ in range(min(size, record_count - start))])
        for start in range(0, record_count, size)
    ]


def serialized(records: Sequence[UsageRecord]) -> bytes:
    """A delivery of a producer of its own, as it goes over the wire."""
    for sequence, record in enumerate(records, 1):
        record.sequence = sequence
    return RecordUsageRequest(producer_id=str(uuid4()), epoch=1, records=records).SerializeToString()


async def send(channel: grpc.aio.Channel, requests: Sequence[bytes], in_flight: int) -> None:
    """Raises unless every record is recorded."""
    call: Any = channel.unary_unary(RECORD_USAGE, None, response_deserializer=RecordUsageResponse.FromString)
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            response = await call(request, metadata=service_metadata(SERVICE_TOKEN), timeout=60)
            assert all(result.status == 1 for result in response.results), response

    await asyncio.gather(*(work() for _ in range(in_flight)))


def copy_by_driver(postgres: EmbeddedPostgres) -> Run:
    """The recorded rows again, as values that the driver packs."""
    with psycopg.connect(postgres.url(DATABASE), autocommit=True) as connection:
        connection.execute("CREATE TABLE raw (LIKE ledger.usage_record)")
        types = column_types(connection)
        rows = connection.execute("SELECT * FROM ledger.usage_record LIMIT %s", (RAW_ROWS,)).fetchall()
        # The driver takes a dict for several types, so it is told which.
        values = [
            [
                Jsonb(value) if name == "jsonb" and value is not None else value
                for name, value in zip(types, row, strict=True)
            ]
            for row in rows
        ]
        with Meter(postgres, None).measuring("raw COPY BINARY, packed by the driver", len(rows)) as run:
            for start in range(0, len(values), BATCH_SIZE):
                with connection.cursor().copy(RAW_COPY) as copy:
                    copy.set_types(types)
                    for row_values in values[start : start + BATCH_SIZE]:
                        copy.write_row(row_values)
    return run


def copy_packed(postgres: EmbeddedPostgres) -> Run:
    """The recorded rows again, as bytes that are packed already: what PostgreSQL takes for itself."""
    query = f"COPY (SELECT * FROM ledger.usage_record LIMIT {RAW_ROWS}) TO STDOUT (FORMAT BINARY)"
    with psycopg.connect(postgres.url(DATABASE), autocommit=True) as connection:
        connection.execute("TRUNCATE raw")
        with connection.cursor().copy(query.encode()) as copy:
            # A header, then a message per row, then a trailer; the driver's first message holds header and first row.
            messages = [bytes(message) for message in copy]
        first, *rows, end = messages
        rows.insert(0, first[len(BEGIN) :])
        with Meter(postgres, None).measuring("raw COPY BINARY, packed before", len(rows)) as run:
            for start in range(0, len(rows), BATCH_SIZE):
                with connection.cursor().copy(RAW_COPY) as copy:
                    copy.write(BEGIN + b"".join(rows[start : start + BATCH_SIZE]) + end)
    return run


def write_and_sync(path: Path, record_count: int) -> None:
    """Deliveries like the ones before, as they came over the wire, each durable before the next."""
    requests = batches(record_count, [str(new_uuid7()) for _ in range(ORGANIZATION_COUNT)])
    with path.open("wb", buffering=0) as file:
        start = time.perf_counter()
        for request in requests:
            file.write(request)
            os.fdatasync(file.fileno())
        seconds = time.perf_counter() - start
    report("fdatasync of the same deliveries", record_count / seconds, "records/s")


def column_types(connection: psycopg.Connection) -> list[str]:
    query = """
        SELECT atttypid::regtype::text FROM pg_attribute
         WHERE attrelid = 'raw'::regclass AND attnum > 0 ORDER BY attnum
    """
    return [name for (name,) in connection.execute(query)]


if __name__ == "__main__":
    main()
