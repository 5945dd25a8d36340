"""How fast reporting answers, and how it grows: `python -m benchmarks.reporting`.

Starts a PostgreSQL with two databases, one of so many records and one of a tenth of them, over the same 90 days,
projects and models (`reporting_books` says how they are written), and a reporting service over each. Questions go to
both in turns over gRPC, so that whatever else the machine does falls on both alike. Then a million calls are exported.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg

from benchmarks.figures import report
from benchmarks.reporting_books import Books, write_books
from development.addresses import Addresses
from development.postgres import EmbeddedPostgres
from development.processes import Process
from development.readiness import answers_grpc_health
from tollgate.reporting.v1.activity_service_pb2 import GetActivityRequest, GetActivitySummaryRequest
from tollgate.reporting.v1.activity_service_pb2_grpc import ActivityServiceStub
from tollgate.reporting.v1.analytics_service_pb2 import GetAnalyticsRequest
from tollgate.reporting.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from tollgate.reporting.v1.export_service_pb2 import ExportRequestsCsvRequest
from tollgate.reporting.v1.export_service_pb2_grpc import ExportServiceStub
from tollgate.reporting.v1.insight_service_pb2 import GetFailuresRequest, GetLatencyRequest, GetOverviewRequest
from tollgate.reporting.v1.insight_service_pb2_grpc import InsightServiceStub
from tollgate.reporting.v1.request_service_pb2 import ListRequestsRequest
from tollgate.reporting.v1.request_service_pb2_grpc import RequestServiceStub

TEMPLATE = "template"
EXPORTED = 1_000_000
WARM_UP = 20
# Losing what was written in a crash does not matter here, and waiting for the disk is not what is measured.
LOAD_SETTINGS = {
    "autovacuum": "off",  # `write_books` sees to it
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "16GB",
}


@dataclass(slots=True)
class Service:
    """A reporting service over one database, and how long its answers took."""

    process: Process
    channel: grpc.aio.Channel
    books: Books
    database: str
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def cpu_seconds(self, postgres: EmbeddedPostgres) -> tuple[float, float]:
        """Of the service so far, and of PostgreSQL on its connections."""
        servers = psutil.Process(postgres.pid).children()
        ours = [server for server in servers if f" {self.database} " in " ".join(server.cmdline())]
        groups = ([psutil.Process(self.process.pid)], ours)
        service, database = (sum(sum(one.cpu_times()[:2]) for one in group) for group in groups)
        return service, database

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.books.secret}"),)

    async def ask(self, name: str, question: Any) -> None:
        start = time.perf_counter()
        await question(self)
        self.milliseconds.setdefault(name, []).append((time.perf_counter() - start) * 1_000)

    def p50(self, name: str) -> float:
        return statistics.median(self.milliseconds[name])


async def _activity(service: Service) -> None:
    stub: Any = ActivityServiceStub(service.channel)
    answer = await stub.GetActivity(GetActivityRequest(days="30", project_id="web"), metadata=service.metadata)
    assert len(answer.activity) == 30, len(answer.activity)


async def _analytics(service: Service) -> None:
    stub: Any = AnalyticsServiceStub(service.channel)
    answer = await stub.GetAnalytics(GetAnalyticsRequest(), metadata=service.metadata)
    assert answer.total_requests == service.books.record_count, answer.total_requests


async def _summary(service: Service) -> None:
    stub: Any = ActivityServiceStub(service.channel)
    await stub.GetActivitySummary(GetActivitySummaryRequest(days="30"), metadata=service.metadata)


async def _overview(service: Service) -> None:
    await _insights(service).GetOverview(GetOverviewRequest(days="30"), metadata=service.metadata)


async def _latency(service: Service) -> None:
    await _insights(service).GetLatency(GetLatencyRequest(days="30"), metadata=service.metadata)


async def _failures(service: Service) -> None:
    await _insights(service).GetFailures(GetFailuresRequest(days="30"), metadata=service.metadata)


def _insights(service: Service) -> Any:
    return InsightServiceStub(service.channel)


async def _requests(service: Service) -> None:
    stub: Any = RequestServiceStub(service.channel)
    answer = await stub.ListRequests(ListRequestsRequest(limit="50"), metadata=service.metadata)
    assert len(answer.requests) == 50, len(answer.requests)


# From a tenth of the calls to all of them.
GROWTH_PERCENT = 20
# With the milliseconds that half of the answers are to stay below, where there is such a goal.
QUESTIONS: dict[str, tuple[Any, float | None]] = {
    "GET /activity?days=30, one project": (_activity, 15),
    "GET /v1/analytics": (_analytics, 25),
    "GET /v1/activity/summary?days=30": (_summary, None),
    "GET /v1/overview?days=30": (_overview, None),
    "GET /v1/latency?days=30": (_latency, None),
    "GET /v1/failures?days=30": (_failures, None),
    "GET /v1/requests, with their total": (_requests, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.reporting")
    parser.add_argument("--records", type=int, default=5_000_000, help="in the larger of the two databases")
    parser.add_argument("--questions", type=int, default=200, help="of each kind, to each database")
    arguments = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    directory.chmod(0o755)  # as root, the server runs as another user
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        _prepare(postgres)
        sizes = (arguments.records // 10, arguments.records)
        databases = [(f"books_{size}", _load(postgres, f"books_{size}", size)) for size in sizes]
        asyncio.run(_measure(postgres, directory, databases, arguments.questions))
    finally:
        postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(postgres: EmbeddedPostgres) -> None:
    postgres.create_database(TEMPLATE)
    environment = os.environ | {"TOLLGATE_DATABASE_ADMIN_URL": postgres.url(TEMPLATE)}
    command = [sys.executable, "-m", "services.ledger.storage.migrate"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with psycopg.connect(postgres.url(TEMPLATE), autocommit=True) as connection:
        for name, value in LOAD_SETTINGS.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")


def _load(postgres: EmbeddedPostgres, database: str, record_count: int) -> Books:
    start = time.perf_counter()
    postgres.create_database(database, template=TEMPLATE)
    books = write_books(postgres.url(database), postgres.url(database, "tollgate_ledger"), record_count)
    report(f"{books.record_count:,} calls written in", time.perf_counter() - start, "s")
    return books


async def _measure(
    postgres: EmbeddedPostgres, directory: Path, databases: Sequence[tuple[str, Books]], question_count: int
) -> None:
    services = [await _service(postgres, directory, database, books) for database, books in databases]
    try:
        small, large = services
        for name, (question, goal_ms) in QUESTIONS.items():
            await _ask_in_turns("warm-up", question, services, WARM_UP)
            before = large.cpu_seconds(postgres)
            await _ask_in_turns(name, question, services, question_count)
            spent = zip(large.cpu_seconds(postgres), before, strict=True)
            own, postgres_ms = ((after - earlier) / question_count * 1_000 for after, earlier in spent)
            report(f"{name}: p50 with {large.books.record_count:,} calls", large.p50(name), "ms", at_most=goal_ms)
            growth = (large.p50(name) / small.p50(name) - 1) * 100
            growth_goal = None if goal_ms is None else GROWTH_PERCENT
            report(f"{name}: more than with a tenth of them", growth, "%", at_most=growth_goal)
            report(f"{name}: CPU of the service", own, "ms")
            report(f"{name}: CPU of PostgreSQL", postgres_ms, "ms")
        await _export(large)
    finally:
        for service in services:
            await service.channel.close(None)
            await service.process.stop()


async def _ask_in_turns(name: str, question: Any, services: Sequence[Service], count: int) -> None:
    for _ in range(count):
        for service in services:
            await service.ask(name, question)


async def _service(postgres: EmbeddedPostgres, directory: Path, database: str, books: Books) -> Service:
    addresses = Addresses.free()
    environment = {
        "TOLLGATE_DATABASE_URL": postgres.url(database, "tollgate_reporting"),
        "TOLLGATE_SERVICE_TOKEN": "benchmark",
        "TOLLGATE_REPORTING_ADDRESS": addresses.reporting,
        "TOLLGATE_REPORTING_METRICS_ADDRESS": addresses.reporting_metrics,
    }
    command = [sys.executable, "-m", "services.reporting"]
    is_ready = answers_grpc_health(addresses.reporting)
    process = Process("reporting", command, environment, directory / f"{database}.log", is_ready)
    await process.start()
    return Service(process, grpc.aio.insecure_channel(addresses.reporting), books, database)


async def _export(service: Service) -> None:
    """One million calls, or all there are, as CSV."""
    stub: Any = ExportServiceStub(service.channel)
    watched = psutil.Process(service.process.pid)
    start, before, highest, rows = time.perf_counter(), watched.memory_info().rss, 0, -1
    async for message in stub.ExportRequestsCsv(
        ExportRequestsCsvRequest(limit=str(EXPORTED)), metadata=service.metadata
    ):
        rows += message.data.count(b"\r\n")
        highest = max(highest, watched.memory_info().rss)
    seconds = time.perf_counter() - start
    assert rows == min(EXPORTED, service.books.record_count), rows
    report(f"export of {rows:,} rows as CSV", rows / seconds, "rows/s", at_least=20_000)
    report("memory of the service during the export", highest / 2**20, "MiB", at_most=200)
    report("memory of the service before", before / 2**20, "MiB")


if __name__ == "__main__":
    main()
