"""Payloads in the spool: they go with their record, and never at the cost of one."""

from pathlib import Path

from services.router.spool import Spool, SpoolSettings
from tests.integration.router.spool_records import SMALL, a_begun, a_finished, read_records, record_calls
from tollgate.ledger.v1.usage_pb2 import RECORD_FLAG_PAYLOAD_TRUNCATED, Payload, UsageRecord

_MIB = 1024 * 1024
ORDINARY = SpoolSettings(segment_bytes=_MIB, bytes_max=8 * _MIB, retry_seconds=0.05)


def with_payload(size: int, begun: UsageRecord | None = None) -> UsageRecord:
    record = a_finished(begun)
    record.payload.CopyFrom(Payload(request_body=bytes(size // 2), response_body=bytes(size - size // 2)))
    return record


async def test_a_payload_goes_with_its_record(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, ORDINARY)
    records = [with_payload(size) for size in (10, 10_000, 500_000)]
    for record in records:
        await spool.finish(record)

    assert await read_records(spool) == records
    spool.close()


async def test_payloads_survive_a_restart(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, ORDINARY)
    records = [with_payload(300_000) for _ in range(8)]
    for record in records:
        await spool.finish(record)
    spool.close()

    again = Spool.open(tmp_path, ORDINARY)
    assert await read_records(again) == records
    again.close()


async def test_a_payload_that_is_large_for_a_segment_is_left_out_and_the_record_kept(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, SMALL)
    record = with_payload(100_000)
    await spool.finish(record)

    (read,) = await read_records(spool)
    assert not read.HasField("payload")
    assert list(read.flags) == [RECORD_FLAG_PAYLOAD_TRUNCATED]
    assert (read.request_id, read.usage) == (record.request_id, record.usage)
    spool.close()


async def test_while_the_ledger_is_away_payloads_give_way_long_before_calls_are_refused(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, ORDINARY)
    written = []
    for _ in range(100):
        begun = a_begun()
        spool.begin(begun, credit_funded=True)
        record = with_payload(200_000, begun)
        await spool.finish(record)
        written.append(record.request_id)
    await record_calls(spool, 1_000)

    read = await read_records(spool)
    kept = [record for record in read if record.HasField("payload")]
    assert [record.request_id for record in read[:100]] == written
    assert len(read) == 1_100
    assert 10 <= len(kept) <= 22
    assert all(list(record.flags) == [RECORD_FLAG_PAYLOAD_TRUNCATED] for record in read[len(kept) : 100])
    spool.close()


async def test_a_payload_takes_no_room_that_an_open_call_needs(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, ORDINARY)
    begun = [a_begun(workflow="w" * 2_000) for _ in range(200)]
    for record in begun:
        spool.begin(record, credit_funded=True)
    for _ in range(30):
        await spool.finish(with_payload(400_000))
    for record in begun:
        await spool.finish(a_finished(record))

    assert len(await read_records(spool)) == 230
    spool.close()
