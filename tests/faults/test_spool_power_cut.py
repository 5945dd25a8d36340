"""The process or the machine stops. What was promised is there all the same.

A process that stops leaves all it wrote, synced or not. A machine that stops leaves, of what was not synced, any page
or none; also of what an earlier process wrote.
"""

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from services.router.spool import Spool
from services.router.spool import segment as segment_module
from services.router.spool.segment import Segment
from services.router.spool.slot import sync_directory
from tests.faults.spool_oracle import Oracle
from tests.integration.router.spool_records import (
    SMALL,
    a_begun,
    a_finished,
    rows_of,
    segment_paths,
)

LIFE_COUNT = 30
CALLER_COUNT = 24
PAGE_BYTES = 4096


class Disk:
    """Knows what of each segment has been synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._durable_ends: dict[str, int] = {}
        self._durable_names: set[str] = set()
        sync = Segment.sync

        def noted_sync(segment: Segment) -> None:
            end = segment.end
            sync(segment)
            self._durable_ends[segment.path.name] = end

        def noted_sync_directory(directory: Path) -> None:
            names = {path.name for path in directory.iterdir()}
            sync_directory(directory)
            self._durable_names |= names

        monkeypatch.setattr(Segment, "sync", noted_sync)
        monkeypatch.setattr(segment_module, "sync_directory", noted_sync_directory)

    def kill(self, directory: Path, survivors: Path) -> None:
        """Copies what the next process finds."""
        shutil.copytree(directory, survivors)

    def cut_power(self, directory: Path, survivors: Path, dice: random.Random) -> None:
        """Copies what the machine finds when it starts again."""
        shutil.copytree(directory, survivors)
        for path in segment_paths(survivors):
            if path.name not in self._durable_names and dice.random() < 0.5:
                path.unlink()
            else:
                path.write_bytes(forget_pages(path.read_bytes(), self._durable_ends.get(path.name, 0), dice))


def forget_pages(data: bytes, durable_end: int, dice: random.Random) -> bytes:
    """Every page behind the durable end is as it was written, or zeros."""
    found = bytearray(data)
    for start in range(durable_end // PAGE_BYTES * PAGE_BYTES, len(data), PAGE_BYTES):
        if dice.random() < 0.5:
            first, end = max(start, durable_end), min(start + PAGE_BYTES, len(data))
            found[first:end] = bytes(end - first)
    return bytes(found)


async def call_for_ever(spool: Spool, oracle: Oracle, dice: random.Random) -> None:
    while True:
        begun = a_begun()
        oracle.begun.add(begun.request_id)
        spool.begin(begun, credit_funded=False)
        await asyncio.sleep(dice.choice((0, 0, 0, 0.001, 0.05)))
        await spool.finish(a_finished(begun))
        oracle.done.add(begun.request_id)


async def ship(spool: Spool, oracle: Oracle, delay_seconds: float = 0) -> None:
    """Everything there is, as a sender does: where the ledger misses something, the spool is told."""
    while (batch := await spool.outbox.read()) is not None:
        if batch.first_sequence > oracle.committed_sequence(batch) + 1:
            spool.outbox.rewind(batch, oracle.committed_sequence(batch))
            continue
        oracle.record_rows(rows_of(batch))
        # Here the ledger has committed and we do not know it.
        await asyncio.sleep(delay_seconds)
        spool.outbox.commit(batch, batch.last_sequence)


async def ship_for_ever(spool: Spool, oracle: Oracle, dice: random.Random) -> None:
    while True:
        await spool.outbox.wait(0.01)
        await ship(spool, oracle, delay_seconds=dice.choice((0, 0.01, 0.1)))


async def live_until_it_stops(
    directory: Path, survivors: Path, disk: Disk, oracle: Oracle, dice: random.Random
) -> None:
    spool = Spool.open(directory, SMALL)
    work = [ship_for_ever(spool, oracle, dice), *(call_for_ever(spool, oracle, dice) for _ in range(CALLER_COUNT))]
    tasks = [asyncio.create_task(task) for task in work]
    await asyncio.sleep(dice.uniform(0.02, 0.2))
    if dice.random() < 0.5:
        disk.kill(directory, survivors)
    else:
        disk.cut_power(directory, survivors, dice)
    failed = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    spool.close()
    await asyncio.gather(*failed)


async def test_processes_and_machines_that_stop_at_any_moment_have_every_promised_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(7)
    disk = Disk(monkeypatch)
    oracle = Oracle()
    for life in range(LIFE_COUNT):
        await live_until_it_stops(tmp_path / str(life), tmp_path / str(life + 1), disk, oracle, dice)

    last = Spool.open(tmp_path / str(LIFE_COUNT), SMALL)
    await ship(last, oracle)
    last.close()

    assert len(oracle.done) > 1_000
    oracle.check_promises()
