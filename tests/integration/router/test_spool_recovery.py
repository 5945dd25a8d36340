"""The spool after bad days: whatever happened to the files, everything readable is shipped once, and nothing else."""

import errno
import logging
from pathlib import Path
from typing import NoReturn

import pytest

from services.common.settings import SettingError
from services.router.spool import Spool
from services.router.spool.segment import HEADER_BYTES, Segment
from tests.integration.router.spool_records import (
    SMALL,
    a_begun,
    damage,
    entries_of,
    finished_entries_of,
    read_all,
    read_records,
    record_calls,
    segment_paths,
)
from tollgate.ledger.v1.usage_pb2 import OUTCOME_UNKNOWN, UsageRecord


async def a_spool_left_behind(directory: Path, call_count: int) -> list[UsageRecord]:
    """What a process that shipped nothing leaves."""
    spool = Spool.open(directory, SMALL)
    records = await record_calls(spool, call_count)
    spool.close()
    return records


async def reopened(directory: Path) -> list[UsageRecord]:
    spool = Spool.open(directory, SMALL)
    records = await read_records(spool)
    spool.close()
    return records


def successes(records: list[UsageRecord]) -> list[UsageRecord]:
    """Without those that were only begun."""
    return [record for record in records if record.outcome != OUTCOME_UNKNOWN]


@pytest.mark.parametrize("missing_bytes", [1, 20, 21, 100])
async def test_a_torn_tail_is_cut_off_and_its_call_becomes_unknown(tmp_path: Path, missing_bytes: int) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    path = segment_paths(tmp_path)[-1]
    end = entries_of(path)[-1].end
    with path.open("r+b") as file:
        file.truncate(end - missing_bytes)

    found = await reopened(tmp_path)

    assert successes(found) == records[:4]
    assert [record.request_id for record in found[4:]] == [records[4].request_id]
    assert not list((tmp_path / "0").glob("*.damaged"))


async def test_a_torn_tail_over_space_never_written_is_cut_off(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    path = segment_paths(tmp_path)[-1]
    last = entries_of(path)[-1]
    with path.open("r+b") as file:
        file.seek(last.end - 30)
        file.write(bytes(30_000))

    found = await reopened(tmp_path)

    assert successes(found) == records[:4]


async def test_a_flipped_bit_in_the_middle_loses_one_record_and_keeps_the_file_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    path = segment_paths(tmp_path)[0]
    damage(path, finished_entries_of(path)[2].start + 40)

    spool = Spool.open(tmp_path, SMALL)
    read = await read_all(spool)
    await record_calls(spool, 700)
    await read_all(spool)
    spool.close()

    assert successes([record for *_, record in read]) == records[:2] + records[3:]
    # What stood before the gap keeps its epoch; what follows could not be sent under it.
    assert [(epoch, sequence) for _, epoch, sequence, _ in read] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    assert [record.request_id for *_, record in read if record.outcome == OUTCOME_UNKNOWN] == [records[2].request_id]
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists()
    assert "is damaged" in caplog.text


async def test_a_damaged_begin_costs_nothing_when_its_call_finished(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    path = segment_paths(tmp_path)[0]
    damage(path, entries_of(path)[0].start + 40)

    assert await reopened(tmp_path) == records


async def test_a_damaged_segment_does_not_hide_the_ones_after_it(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 1_000)
    path = segment_paths(tmp_path)[1]
    lost = UsageRecord.FromString(finished_entries_of(path)[7].payload)
    damage(path, finished_entries_of(path)[7].start + 40)

    found = await reopened(tmp_path)

    assert sorted(record.request_id for record in successes(found)) == sorted(
        record.request_id for record in records if record.request_id != lost.request_id
    )


async def test_a_segment_whose_header_is_damaged_is_still_read(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 1_000)
    damage(segment_paths(tmp_path)[0], 12)

    found = await reopened(tmp_path)

    assert sorted(record.request_id for record in found) == sorted(record.request_id for record in records)


async def test_a_segment_of_garbage_is_kept_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 1_000)
    path = segment_paths(tmp_path)[1]
    lost = {UsageRecord.FromString(entry.payload).request_id for entry in finished_entries_of(path)}
    path.write_bytes(b"\x5a" * path.stat().st_size)

    found = await reopened(tmp_path)

    assert {record.request_id for record in successes(found)} == {record.request_id for record in records} - lost
    assert path.with_name(path.name + ".damaged").exists()


async def test_a_segment_that_was_deleted_by_hand_does_not_stop_the_others(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 1_000)
    path = segment_paths(tmp_path)[1]
    lost = {UsageRecord.FromString(entry.payload).request_id for entry in finished_entries_of(path)}
    path.unlink()

    found = await reopened(tmp_path)

    assert {record.request_id for record in successes(found)} == {record.request_id for record in records} - lost


@pytest.mark.parametrize("name", ["000000000009.segment", "000000000000.segment", "copy of 1.segment"])
async def test_a_copied_segment_is_read_once(tmp_path: Path, name: str) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    path = segment_paths(tmp_path)[0]
    copy = path.with_name(name)
    copy.write_bytes(path.read_bytes())

    assert await reopened(tmp_path) == records
    assert copy.with_name(copy.name + ".duplicate").exists()


async def test_a_renamed_segment_keeps_its_place(tmp_path: Path) -> None:
    records = await a_spool_left_behind(tmp_path, 1_000)
    path = segment_paths(tmp_path)[0]
    path.rename(path.with_name("zzz.segment"))

    assert await reopened(tmp_path) == records


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES, HEADER_BYTES + 3, 100_000])
async def test_an_empty_segment_is_nothing(tmp_path: Path, size: int) -> None:
    records = await a_spool_left_behind(tmp_path, 5)
    empty = segment_paths(tmp_path)[-1].with_name("000000000009.segment")
    empty.write_bytes(bytes(size))

    assert await reopened(tmp_path) == records
    assert not list((tmp_path / "0").glob(f"{empty.name}*"))


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 36], ids=["missing", "empty", "damaged"])
async def test_without_a_cursor_everything_is_offered_again_under_the_same_numbers(
    tmp_path: Path, content: bytes | None
) -> None:
    before = Spool.open(tmp_path, SMALL)
    await record_calls(before, 3)
    sent = await read_all(before)
    before.close()
    cursor = tmp_path / "0" / "cursor"
    cursor.unlink()
    if content is not None:
        cursor.write_bytes(content)

    after = Spool.open(tmp_path, SMALL)

    assert await read_all(after) == sent
    after.close()


async def test_a_cursor_that_is_behind_leads_to_the_same_numbers_again(tmp_path: Path) -> None:
    before = Spool.open(tmp_path, SMALL)
    await record_calls(before, 400)
    await read_all(before)
    old_cursor = (tmp_path / "0" / "cursor").read_bytes()
    await record_calls(before, 800)
    sent = await read_all(before)
    before.close()
    (tmp_path / "0" / "cursor").write_bytes(old_cursor)

    after = Spool.open(tmp_path, SMALL)
    again = await read_all(after)

    # Segments that were committed are gone; what is left is not taken for the remains of damage.
    assert again
    assert again == sent[-len(again) :]
    after.close()


async def test_a_slot_that_forgot_who_it_is_becomes_a_new_producer_and_ships_the_old_ones_records(
    tmp_path: Path,
) -> None:
    before = Spool.open(tmp_path, SMALL)
    records = await record_calls(before, 3)
    before.close()
    (tmp_path / "0" / "identity").write_bytes(b"\0" * 36)

    after = Spool.open(tmp_path, SMALL)
    records += await record_calls(after, 2)
    read = await read_all(after)

    producers = [producer for producer, *_ in read]
    assert [record for *_, record in read] == records
    assert producers[:3] == [producers[0]] * 3
    assert producers[3:] == [producers[3]] * 2
    assert producers[0] != producers[3]
    after.close()


async def test_a_record_damaged_while_we_run_does_not_stop_the_others(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    records = await record_calls(spool, 5)
    path = segment_paths(tmp_path)[0]
    damage(path, finished_entries_of(path)[2].start + 40)

    read = await read_all(spool)
    records += await record_calls(spool, 1)
    read += await read_all(spool)

    assert [record for *_, record in read] == records[:2] + records[3:]
    assert [(epoch, sequence) for _, epoch, sequence, _ in read] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    spool.close()


async def test_a_full_disk_at_the_start_stops_neither_shipping_nor_what_is_recovered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Spool.open(tmp_path, SMALL)
    begun = a_begun()
    before.begin(begun, credit_funded=True)
    records = await record_calls(before, 5)
    before.close()

    def no_space(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Segment, "create", no_space)
        after = Spool.open(tmp_path, SMALL)
        while_full = await read_records(after)
        # It holds the only trace of the call that was cut off.
        kept = segment_paths(tmp_path)
    later = await record_when_possible(after)

    assert while_full == records
    assert [path.name for path in kept] == ["000000000001.segment"]
    assert later == [begun]
    after.close()


async def record_when_possible(spool: Spool) -> list[UsageRecord]:
    await spool.outbox.wait(5)
    return await read_records(spool)


async def test_what_a_killed_process_wrote_is_synced_before_it_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_spool_left_behind(tmp_path, 1_000)
    synced: list[str] = []
    sync = Segment.sync

    def noted_sync(segment: Segment) -> None:
        synced.append(segment.path.name)
        sync(segment)

    monkeypatch.setattr(Segment, "sync", noted_sync)
    spool = Spool.open(tmp_path, SMALL)

    assert synced == [path.name for path in segment_paths(tmp_path)]
    spool.close()


async def test_a_file_that_cannot_be_opened_stops_the_start_with_one_line(tmp_path: Path) -> None:
    await a_spool_left_behind(tmp_path, 1)
    (tmp_path / "0" / "000000000009.segment").mkdir()

    with pytest.raises(SettingError, match="cannot be used: Is a directory"):
        Spool.open(tmp_path, SMALL)


async def test_a_clean_start_says_nothing_alarming(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await a_spool_left_behind(tmp_path, 1_000)
    with caplog.at_level(logging.WARNING):
        await reopened(tmp_path)

    assert caplog.text == ""
