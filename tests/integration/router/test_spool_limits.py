"""The spool when the disk is full or fails: calls are refused, what was let in is kept, and it heals by itself."""

import asyncio
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.errors import ErrorKind
from services.router.spool import Spool, SpoolFailedError, SpoolFullError
from services.router.spool.segment import Segment
from tests.integration.router.spool_records import (
    SMALL,
    a_begun,
    a_finished,
    damage,
    finished_entries_of,
    read_all,
    read_records,
    record_calls,
    segment_paths,
)
from tollgate.ledger.v1.usage_pb2 import UsageRecord


@dataclass
class SmallDisk:
    """Somewhere a spool can run out of space."""

    directory: Path
    fill: Callable[[], None]
    free: Callable[[], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 1.5 MiB; where we may not mount one, a limit on file sizes, which fails new segments alike."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tollgate-test", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield SmallDisk(
            tmp_path,
            fill=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL.segment_bytes - 1, hard)),
            free=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    filler = tmp_path / "filler"
    yield SmallDisk(tmp_path, fill=lambda: fill_up(filler), free=filler.unlink)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill_up(filler: Path) -> None:
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def bytes_on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in segment_paths(directory))


def begin_until_refused(spool: Spool) -> list[UsageRecord]:
    begun: list[UsageRecord] = []
    with suppress(SpoolFullError):
        while True:
            record = a_begun()
            spool.begin(record, credit_funded=False)
            begun.append(record)
    return begun


async def finish_all(spool: Spool, begun: list[UsageRecord]) -> list[UsageRecord]:
    finished = [a_finished(record) for record in begun]
    await asyncio.gather(*map(spool.finish, finished))
    return finished


async def test_every_call_that_was_let_in_before_the_disk_filled_up_is_recorded(small_disk: SmallDisk) -> None:
    spool = Spool.open(small_disk.directory, SMALL)
    first = a_begun()
    spool.begin(first, credit_funded=True)
    small_disk.fill()
    begun = [first, *begin_until_refused(spool)]

    finished = await finish_all(spool, begun)

    assert len(begun) > 1
    assert await read_records(spool) == finished
    spool.close()


async def test_a_full_disk_refuses_calls_and_takes_them_again_when_there_is_space(small_disk: SmallDisk) -> None:
    spool = Spool.open(small_disk.directory, SMALL)
    small_disk.fill()
    with pytest.raises(SpoolFullError) as refused:
        spool.begin(a_begun(), credit_funded=False)
    small_disk.free()

    records = await record_calls(spool, 1)

    assert refused.value.kind is ErrorKind.UNAVAILABLE
    assert refused.value.retry_after_seconds is not None
    assert await read_records(spool) == records
    spool.close()


async def test_what_a_crash_left_on_a_full_disk_is_shipped_and_recovered_when_there_is_space(
    small_disk: SmallDisk,
) -> None:
    before = Spool.open(small_disk.directory, SMALL)
    begun = a_begun()
    before.begin(begun, credit_funded=True)
    records = await record_calls(before, 5)
    before.close()
    small_disk.fill()

    after = Spool.open(small_disk.directory, SMALL)
    read = await read_records(after)
    small_disk.free()
    if len(read) == len(records):
        await after.outbox.wait(5)
        read += await read_records(after)

    assert read == [*records, begun]
    after.close()


async def test_near_the_limit_only_calls_on_own_keys_are_taken(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    with pytest.raises(SpoolFullError, match="nearly full"):
        await record_calls(spool, 100_000)

    own_key = a_begun()
    spool.begin(own_key, credit_funded=False)
    await spool.finish(a_finished(own_key))

    assert 0.8 * SMALL.bytes_max <= bytes_on_disk(tmp_path) <= SMALL.bytes_max
    spool.close()


async def test_at_the_limit_nothing_is_taken_and_nothing_is_dropped(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    finished: list[UsageRecord] = []
    while begun := begin_until_refused(spool):
        finished += await finish_all(spool, begun)

    assert bytes_on_disk(tmp_path) <= SMALL.bytes_max
    assert await read_records(spool) == finished
    await record_calls(spool, 1)
    spool.close()


@pytest.fixture
def failing_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Syncs fail while this list is not empty; each takes one element, and a True stays."""
    failures: list[bool] = []
    sync = Segment.sync

    def maybe(segment: Segment) -> None:
        if failures:
            if not failures[0]:
                failures.pop(0)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(segment)

    monkeypatch.setattr(Segment, "sync", maybe)
    yield failures
    failures.clear()


def request_id_of(record: UsageRecord) -> str:
    return record.request_id


ONCE = [False]
FOR_EVER = [True]


async def test_a_sync_that_fails_once_costs_a_segment_and_no_record(tmp_path: Path, failing_sync: list[bool]) -> None:
    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 30)
    open_call = a_begun()
    spool.begin(open_call, credit_funded=True)
    failing_sync += ONCE
    records += await record_calls(spool, 30)
    spool.close()

    reopened = Spool.open(tmp_path, SMALL)
    read = await read_all(reopened)

    assert [record for *_, record in read] == [*records, open_call]
    assert [sequence for _, epoch, sequence, _ in read if epoch == 1] == list(range(1, 61))
    reopened.close()


async def test_what_a_failed_sync_left_on_disk_is_not_sent_twice(
    tmp_path: Path, failing_sync: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(descriptor: int, end: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 30)
    failing_sync += ONCE
    with monkeypatch.context() as disk:
        disk.setattr(os, "ftruncate", cannot)
        records += await record_calls(spool, 30)
    spool.close()

    reopened = Spool.open(tmp_path, SMALL)

    assert len(segment_paths(tmp_path)) == 2
    assert await read_records(reopened) == records
    reopened.close()


async def test_while_the_disk_fails_finishing_says_so_and_no_call_is_let_in(
    tmp_path: Path, failing_sync: list[bool]
) -> None:
    spool = Spool.open(tmp_path, SMALL)
    begun = a_begun()
    spool.begin(begun, credit_funded=False)
    failing_sync += FOR_EVER

    with pytest.raises(SpoolFailedError, match="Input/output error"):
        await spool.finish(a_finished(begun))
    with pytest.raises(SpoolFullError, match="Input/output error"):
        spool.begin(a_begun(), credit_funded=False)

    assert await read_records(spool) == []
    failing_sync.clear()
    spool.close()


async def test_a_disk_that_works_again_gets_everything_and_calls_are_let_in(
    tmp_path: Path, failing_sync: list[bool]
) -> None:
    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 10)
    begun = [a_begun() for _ in range(3)]
    for record in begun:
        spool.begin(record, credit_funded=False)
    failing_sync += FOR_EVER
    for record in begun[:2]:
        with pytest.raises(SpoolFailedError):
            await spool.finish(a_finished(record))
        records.append(a_finished(record))
    failing_sync.clear()
    await asyncio.sleep(SMALL.retry_seconds * 3)

    await spool.finish(a_finished(begun[2]))
    records.append(a_finished(begun[2]))
    records += await record_calls(spool, 10)

    assert await read_records(spool) == records
    spool.close()


async def test_damage_found_while_the_disk_fails_leaves_no_gap_once_it_works(
    tmp_path: Path, failing_sync: list[bool]
) -> None:
    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 5)
    path = segment_paths(tmp_path)[0]
    damage(path, finished_entries_of(path)[2].start + 40)
    failing_sync += FOR_EVER
    not_durable = a_finished()
    with pytest.raises(SpoolFailedError):
        await spool.finish(not_durable)
    read = await read_all(spool)
    failing_sync.clear()
    await spool.outbox.wait(5)
    read += await read_all(spool)
    later = await record_calls(spool, 1)
    read += await read_all(spool)

    by_epoch = {epoch: [record for _, at, _, record in read if at == epoch] for epoch in (1, 2)}
    assert by_epoch[1] == records[:2]
    assert sorted(map(request_id_of, by_epoch[2])) == sorted(map(request_id_of, [*records[3:], not_durable, *later]))
    assert [sequence for _, epoch, sequence, _ in read if epoch == 2] == [1, 2, 3, 4]
    spool.close()


async def test_a_disk_that_fails_for_long_leaves_no_heap_of_files(tmp_path: Path, failing_sync: list[bool]) -> None:
    spool = Spool.open(tmp_path, SMALL)
    await record_calls(spool, 10)
    failing_sync += FOR_EVER
    with pytest.raises(SpoolFailedError):
        await spool.finish(a_finished())
    await asyncio.sleep(SMALL.retry_seconds * 8)

    assert len(segment_paths(tmp_path)) <= 4
    failing_sync.clear()
    spool.close()


async def test_a_write_that_fails_is_made_good_in_another_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 10)
    begun = a_begun()
    spool.begin(begun, credit_funded=True)
    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", cannot)
        finishing = asyncio.create_task(spool.finish(a_finished(begun)))
        await asyncio.sleep(0)
    await finishing

    assert await read_records(spool) == [*records, a_finished(begun)]
    spool.close()
