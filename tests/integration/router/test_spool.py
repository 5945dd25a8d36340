"""The spool in good days: what goes in comes out, in order, once, and disk is given back."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.settings import SettingError
from services.router.spool import Spool
from tests.integration.router.spool_records import (
    SMALL,
    a_begun,
    a_finished,
    read_all,
    read_records,
    record_calls,
    segment_paths,
)
from tollgate.ledger.v1.usage_pb2 import OUTCOME_UNKNOWN, RECORD_FLAG_RECOVERED


async def test_finished_calls_come_out_in_order_and_numbered_from_one(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 1_000)

    read = await read_all(spool)

    assert [record for *_, record in read] == records
    assert [(epoch, sequence) for _, epoch, sequence, _ in read] == [(1, n) for n in range(1, 1_001)]
    spool.close()


async def test_a_call_that_has_not_finished_is_not_sent(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    spool.begin(a_begun(), credit_funded=True)
    records = await record_calls(spool, 1)

    assert await read_records(spool) == records
    spool.close()


async def test_a_refused_call_is_recorded_without_having_begun(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    refused = a_finished()
    await spool.finish(refused)

    assert await read_records(spool) == [refused]
    spool.close()


async def test_the_same_batch_comes_again_until_it_is_committed(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    await record_calls(spool, 3)

    first = await spool.outbox.read()
    again = await spool.outbox.read()

    assert first is not None
    assert first == again
    spool.outbox.commit(first, first.last_sequence)
    assert await spool.outbox.read() is None
    spool.close()


async def test_segments_are_deleted_when_everything_in_them_is_committed(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    await record_calls(spool, 1_000)
    first, second, *_ = segment_paths(tmp_path)

    await read_all(spool)

    assert not first.exists()
    assert not second.exists()
    spool.close()


async def test_a_long_stream_does_not_keep_old_segments_and_is_still_recovered(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    long_stream = a_begun()
    spool.begin(long_stream, credit_funded=True)
    for _ in range(10):
        await record_calls(spool, 400)
        await read_all(spool)
    numbers = [int(path.stem) for path in segment_paths(tmp_path)]
    spool.close()

    reopened = Spool.open(tmp_path, SMALL)

    assert numbers[0] > 5
    assert await read_records(reopened) == [long_stream]
    reopened.close()


async def test_a_long_stream_that_finishes_after_its_segment_is_gone_is_recorded_once(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    begun = a_begun()
    spool.begin(begun, credit_funded=True)
    await record_calls(spool, 1_000)
    await read_all(spool)
    await spool.finish(a_finished(begun))
    spool.close()

    reopened = Spool.open(tmp_path, SMALL)

    assert await read_records(reopened) == [a_finished(begun)]
    reopened.close()


async def test_unsent_records_are_shipped_under_their_own_epoch_before_new_ones(tmp_path: Path) -> None:
    before = Spool.open(tmp_path, SMALL)
    await record_calls(before, 3)
    before.close()

    after = Spool.open(tmp_path, SMALL)
    await record_calls(after, 2)
    read = await read_all(after)

    assert [(epoch, sequence) for _, epoch, sequence, _ in read] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert len({producer for producer, *_ in read}) == 1
    after.close()


async def test_what_was_committed_is_not_sent_again_by_the_next_life(tmp_path: Path) -> None:
    before = Spool.open(tmp_path, SMALL)
    await record_calls(before, 3)
    await read_all(before)
    unsent = await record_calls(before, 2)
    before.close()

    after = Spool.open(tmp_path, SMALL)

    assert after.outbox.depth == 2
    assert await read_records(after) == unsent
    after.close()


async def test_a_call_that_was_cut_off_becomes_a_record_of_unknown_outcome_in_the_new_epoch(tmp_path: Path) -> None:
    before = Spool.open(tmp_path, SMALL)
    begun = a_begun()
    before.begin(begun, credit_funded=True)
    finished = await record_calls(before, 1)
    before.close()

    after = Spool.open(tmp_path, SMALL)
    read = await read_all(after)

    assert [(epoch, sequence, record) for _, epoch, sequence, record in read] == [(1, 1, finished[0]), (2, 1, begun)]
    assert begun.outcome == OUTCOME_UNKNOWN
    assert list(begun.flags) == [RECORD_FLAG_RECOVERED]
    after.close()


async def test_a_recovered_call_is_not_recovered_again_by_a_third_life(tmp_path: Path) -> None:
    first = Spool.open(tmp_path, SMALL)
    begun = a_begun()
    first.begin(begun, credit_funded=True)
    first.close()
    Spool.open(tmp_path, SMALL).close()

    third = Spool.open(tmp_path, SMALL)

    assert await read_records(third) == [begun]
    third.close()


async def test_depth_and_age_fall_to_zero_when_the_ledger_has_everything(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    await record_calls(spool, 5)
    await asyncio.sleep(0.05)
    waiting = (spool.outbox.depth, spool.outbox.oldest_seconds)

    await read_all(spool)

    assert waiting[0] == 5
    assert waiting[1] >= 0.05
    assert (spool.outbox.depth, spool.outbox.oldest_seconds) == (0, 0.0)
    spool.close()


async def test_a_caller_who_leaves_while_the_record_is_synced_loses_nothing(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    left, stayed = a_finished(), a_finished()
    leaving = asyncio.create_task(spool.finish(left))
    staying = asyncio.create_task(spool.finish(stayed))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying

    assert await read_records(spool) == [left, stayed]
    spool.close()


def test_two_processes_take_two_slots_and_give_them_back(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib\n"
        "from services.router.spool import Spool, SpoolSettings\n"
        "spool = Spool.open(pathlib.Path(sys.argv[1]), SpoolSettings())\n"
        "print(spool.directory.name, flush=True)\n"
        "sys.stdin.read()\n"
    )

    def worker() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", hold, str(tmp_path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def slot_of(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    first = worker()
    first_slot = slot_of(first)
    second = worker()
    second_slot = slot_of(second)
    first.kill()
    first.communicate()
    third = worker()
    third_slot = slot_of(third)
    for process in (second, third):
        process.communicate()

    assert (first_slot, second_slot, third_slot) == ("0", "1", "0")


def test_a_directory_that_cannot_be_used_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SettingError, match="spool directory") as raised:
        Spool.open(tmp_path / "file", SMALL)

    assert "\n" not in str(raised.value)
