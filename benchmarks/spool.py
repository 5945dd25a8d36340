"""How fast usage records become durable, beside what the disk can do with the same bytes.

    .venv/bin/python -m benchmarks.spool [directory]

The directory decides which disk is measured; without one, the system's temporary directory.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from benchmarks.figures import Row
from services.common.uuid7 import new_uuid7
from services.router.spool import Spool, SpoolSettings
from tollgate.ledger.v1.usage_pb2 import (
    ENDPOINT_CHAT_COMPLETIONS,
    FUNDING_CREDITS,
    OUTCOME_SUCCESS,
    OUTCOME_UNKNOWN,
    RECORD_FLAG_RECOVERED,
    USAGE_SOURCE_REPORTED,
    UsageRecord,
)

CALL_COUNT_BY_CONCURRENCY = {1: 1_500, 16: 20_000, 256: 50_000}
ARRIVALS_PER_SECOND = (300, 1_000, 2_500)
ARRIVAL_SECONDS = 3
RAW_BYTES_MAX = 12 * 1024 * 1024
ORGANIZATION = "01890a5d-ac96-774b-bcce-b302099a8057"
API_KEY = "01890a5d-ac96-774b-bcce-b302099a8058"
# What a call leaves on disk, begin and finish, with what surrounds them.
BYTES_PER_CALL = 480


def a_call() -> tuple[UsageRecord, UsageRecord]:
    """What an ordinary call writes when it begins and when it ends."""
    begun = UsageRecord(
        request_id=str(new_uuid7()),
        organization_id=ORGANIZATION,
        project_id="default",
        api_key_id=API_KEY,
        endpoint=ENDPOINT_CHAT_COMPLETIONS,
        requested_model="openai/gpt-4.1-mini",
        outcome=OUTCOME_UNKNOWN,
        funding=FUNDING_CREDITS,
        flags=[RECORD_FLAG_RECOVERED],
    )
    begun.start_time.GetCurrentTime()
    finished = UsageRecord()
    finished.CopyFrom(begun)
    finished.ClearField("flags")
    finished.MergeFrom(
        UsageRecord(
            model="gpt-4.1-mini",
            provider="openai",
            latency_ms=900,
            time_to_first_token_ms=210,
            outcome=OUTCOME_SUCCESS,
            status=200,
            usage_source=USAGE_SOURCE_REPORTED,
            streamed=True,
        )
    )
    finished.usage.input_tokens, finished.usage.cached_input_tokens, finished.usage.output_tokens = 1_200, 900, 240
    finished.attempts.add(
        provider="openai", upstream_model="gpt-4.1-mini", funding=FUNDING_CREDITS, status=200, latency_ms=898
    )
    return begun, finished


async def measure_spool(directory: Path, concurrency: int) -> Row:
    """Callers that begin and finish one call after the other."""
    call_count = CALL_COUNT_BY_CONCURRENCY[concurrency]
    calls = iter([a_call() for _ in range(call_count)])
    spool = Spool.open(directory, SpoolSettings())
    waits: list[float] = []

    async def caller(calls: Iterator[tuple[UsageRecord, UsageRecord]]) -> None:
        for begun, finished in calls:
            spool.begin(begun, credit_funded=True)
            start = time.perf_counter()
            await spool.finish(finished)
            waits.append(time.perf_counter() - start)

    start, cpu_start = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(calls) for _ in range(concurrency)))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    spool.close()
    return figures(f"spool, {concurrency} at once", waits, seconds, cpu_seconds)


async def measure_arrivals(directory: Path, calls_per_second: int) -> Row:
    """Calls that arrive evenly, as many as a worker can expect. What the pacing costs by itself is taken off."""
    spool = Spool.open(directory, SpoolSettings())
    waits: list[float] = []

    async def call(begun: UsageRecord, finished: UsageRecord) -> None:
        spool.begin(begun, credit_funded=True)
        start = time.perf_counter()
        await spool.finish(finished)
        waits.append(time.perf_counter() - start)

    async def idle(begun: UsageRecord, finished: UsageRecord) -> None:
        await asyncio.sleep(0)

    pacing_cpu_seconds, _ = await paced(idle, calls_per_second)
    cpu_seconds, seconds = await paced(call, calls_per_second)
    spool.close()
    return figures(f"spool, {calls_per_second:,} calls/s", waits, seconds, cpu_seconds - pacing_cpu_seconds)


async def paced(
    call: Callable[[UsageRecord, UsageRecord], Coroutine[None, None, None]], calls_per_second: int
) -> tuple[float, float]:
    """Makes the calls for a while. Returns CPU and wall time, in seconds."""
    calls = [a_call() for _ in range(calls_per_second * ARRIVAL_SECONDS)]
    start, cpu_start = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as running:
        for index, (begun, finished) in enumerate(calls):
            early_seconds = start + index / calls_per_second - time.perf_counter()
            if early_seconds > 0:
                await asyncio.sleep(early_seconds)
            running.create_task(call(begun, finished))
    return time.process_time() - cpu_start, time.perf_counter() - start


def measure_raw(directory: Path, calls_per_sync: int) -> Row:
    """The same bytes, written and synced in one thread, with nothing around them."""
    data = os.urandom(BYTES_PER_CALL * calls_per_sync)
    descriptor = os.open(directory / "raw", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, RAW_BYTES_MAX)
    os.fsync(descriptor)
    waits: list[float] = []
    start, cpu_start = time.perf_counter(), time.process_time()
    for offset in range(0, min(RAW_BYTES_MAX, 3_000 * len(data)) - len(data), len(data)):
        begin = time.perf_counter()
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
        waits += [time.perf_counter() - begin] * calls_per_sync
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    os.close(descriptor)
    return figures(f"raw fdatasync, {calls_per_sync} at once", waits, seconds, cpu_seconds)


def figures(what: str, waits: list[float], seconds: float, cpu_seconds: float) -> Row:
    waits.sort()
    count = len(waits)
    p50_ms, p99_ms = waits[count // 2] * 1000, waits[count * 99 // 100] * 1000
    cpu_us = cpu_seconds / count * 1_000_000
    return Row(
        what, f"{count / seconds:,.0f} durable calls/s, p50 {p50_ms:.2f}, p99 {p99_ms:.2f} ms, CPU {cpu_us:.1f} µs"
    )


def main(parent: Path | None) -> None:
    for concurrency in CALL_COUNT_BY_CONCURRENCY:
        with tempfile.TemporaryDirectory(dir=parent) as directory:
            print(asyncio.run(measure_spool(Path(directory), concurrency)), flush=True)
            print(measure_raw(Path(directory), concurrency), flush=True)
    for rate in ARRIVALS_PER_SECOND:
        with tempfile.TemporaryDirectory(dir=parent) as directory:
            print(asyncio.run(measure_arrivals(Path(directory), rate)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
