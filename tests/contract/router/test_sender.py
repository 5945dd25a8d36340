"""The sender against a ledger that dies, answers late, loses replies, refuses, and asks for what it misses."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from development.addresses import free_address
from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.router import sender as sender_module
from services.router.sender import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, Sender, Sweeper, retry_seconds
from services.router.spool import Spool
from tests.contract.router.sender_ledger import SERVICE_TOKEN, SOON_SECONDS, Ledger, RefusedError, server_of, until
from tests.integration.router.spool_records import SMALL, a_begun, a_finished, record_calls, segment_paths
from tollgate.ledger.v1.usage_pb2 import UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordStatus


@pytest.fixture
def address() -> str:
    return free_address()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def server(ledger: Ledger, address: str) -> AsyncIterator[GrpcServer]:
    server = server_of(ledger, address)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(address)
    yield channel
    await channel.close(None)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool.open(tmp_path, SMALL)
    yield spool
    spool.close()


@pytest.fixture
async def sender(spool: Spool, channel: grpc.aio.Channel) -> AsyncIterator[Sender]:
    sender = Sender(spool.outbox, channel, SERVICE_TOKEN)
    sender.start()
    yield sender
    await sender.stop(0)


def ids_of(records: list[UsageRecord]) -> list[str]:
    return [record.request_id for record in records]


async def until_shipped(spool: Spool) -> None:
    await until(lambda: spool.outbox.depth == 0)


@pytest.mark.usefixtures("server", "sender")
async def test_a_finished_call_reaches_the_ledger_within_a_fifth_of_a_second(ledger: Ledger, spool: Spool) -> None:
    await record_calls(spool, 1)
    await ledger.until_it_has(1)
    start = time.monotonic()
    records = await record_calls(spool, 1)
    await ledger.until_it_has(2)

    assert time.monotonic() - start < 0.2
    records[0].sequence = 2
    assert list(ledger.records.values())[1] == records[0]


@pytest.mark.usefixtures("server", "sender")
async def test_calls_that_finish_together_share_one_request(ledger: Ledger, spool: Spool) -> None:
    await record_calls(spool, 200)
    await ledger.until_it_has(200)

    assert len(ledger.requests) < 10


@pytest.mark.usefixtures("server")
async def test_a_backlog_is_shipped_in_batches_of_at_most_a_thousand_in_order(
    ledger: Ledger, spool: Spool, channel: grpc.aio.Channel
) -> None:
    records = await record_calls(spool, 2_000)
    sender = Sender(spool.outbox, channel, SERVICE_TOKEN)
    sender.start()
    await ledger.until_it_has(2_000)
    await sender.stop(0)

    assert list(ledger.records) == ids_of(records)
    assert [record.sequence for record in ledger.records.values()] == list(range(1, 2_001))
    assert max(len(request.records) for request in ledger.requests) <= 1_000


@pytest.mark.usefixtures("sender")
async def test_while_the_ledger_is_away_records_wait_and_then_all_arrive_once(
    ledger: Ledger, spool: Spool, address: str
) -> None:
    first_life = server_of(ledger, address)
    await first_life.start()
    records = await record_calls(spool, 10)
    await ledger.until_it_has(10)
    await first_life.stop()
    records += await record_calls(spool, 10)
    await asyncio.sleep(0.3)
    waiting = spool.outbox.depth
    second_life = server_of(ledger, address)
    await second_life.start()
    await ledger.until_it_has(20, seconds=RETRY_SECONDS_MAX + SOON_SECONDS)
    await second_life.stop()

    assert waiting == 10
    assert list(ledger.records) == ids_of(records)


@pytest.mark.usefixtures("server", "sender")
async def test_a_reply_lost_after_the_commit_is_asked_for_again_and_nothing_is_doubled(
    ledger: Ledger, spool: Spool
) -> None:
    async def lose_the_reply() -> None:
        ledger.after_commit = type(ledger).after_commit
        raise RefusedError("The reply is lost.")

    ledger.after_commit = lose_the_reply
    records = await record_calls(spool, 10)
    await ledger.until_it_has(10)
    await until_shipped(spool)

    assert list(ledger.records) == ids_of(records)
    assert [len(request.records) for request in ledger.requests] == [10, 10]


@pytest.mark.usefixtures("server", "sender")
async def test_a_ledger_that_does_not_answer_in_time_is_asked_again(
    ledger: Ledger, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stall() -> None:
        ledger.before_commit = type(ledger).before_commit
        await asyncio.sleep(30)

    monkeypatch.setattr(sender_module, "CALL_TIMEOUT_SECONDS", 0.2)
    ledger.before_commit = stall
    records = await record_calls(spool, 3)
    await ledger.until_it_has(3)

    assert list(ledger.records) == ids_of(records)


@pytest.mark.usefixtures("server", "sender")
async def test_records_the_ledger_sets_aside_are_logged_and_not_sent_again(
    ledger: Ledger, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    invalid, conflicting, good = a_finished(), a_finished(), a_finished()
    ledger.statuses[invalid.request_id] = RecordStatus.RECORD_STATUS_INVALID
    ledger.statuses[conflicting.request_id] = RecordStatus.RECORD_STATUS_CONFLICT
    await asyncio.gather(*map(spool.finish, (invalid, conflicting, good)))
    await until_shipped(spool)

    assert list(ledger.records) == [good.request_id]
    assert len(ledger.requests) == 1
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [getattr(error, "request_id", "") for error in errors] == [invalid.request_id, conflicting.request_id]


@pytest.mark.usefixtures("server", "sender")
async def test_a_ledger_that_fell_back_gets_again_what_is_still_on_disk_under_the_same_numbers(
    ledger: Ledger, spool: Spool
) -> None:
    records = await record_calls(spool, 10)
    await ledger.until_it_has(10)
    await until_shipped(spool)
    ((log, _),) = ledger.committed.items()
    ledger.committed[log] = 4
    for request_id in ids_of(records[4:]):
        del ledger.records[request_id]
    records += await record_calls(spool, 1)
    await ledger.until_it_has(11)
    await until_shipped(spool)

    assert list(ledger.records) == ids_of(records)
    assert ledger.committed == {log: 11}


@pytest.mark.usefixtures("server", "sender")
async def test_a_ledger_that_fell_back_behind_what_is_on_disk_gets_the_rest_under_a_new_epoch(
    ledger: Ledger, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await record_calls(spool, 1_000)
    await ledger.until_it_has(1_000)
    await until_shipped(spool)
    await asyncio.sleep(sender_module.IDLE_SECONDS + 0.2)
    on_disk_from = segment_paths(tmp_path)[0]
    ledger.committed.clear()
    ledger.records.clear()
    fresh = await record_calls(spool, 1)
    await until(lambda: fresh[0].request_id in ledger.records)

    assert on_disk_from.name != "000000000001.segment"
    assert [epoch for _, epoch in ledger.committed] == [2]
    assert "are missing" in caplog.text


@pytest.mark.usefixtures("server")
async def test_stopping_ships_what_is_left(ledger: Ledger, spool: Spool, channel: grpc.aio.Channel) -> None:
    sender = Sender(spool.outbox, channel, SERVICE_TOKEN)
    sender.start()
    records = await record_calls(spool, 10)
    await sender.stop(SOON_SECONDS)

    assert list(ledger.records) == ids_of(records)


async def test_stopping_without_a_ledger_ends_in_time_and_the_next_life_ships(
    ledger: Ledger, spool: Spool, channel: grpc.aio.Channel, address: str, tmp_path: Path
) -> None:
    sender = Sender(spool.outbox, channel, SERVICE_TOKEN)
    sender.start()
    begun = a_begun()
    spool.begin(begun, credit_funded=True)
    records = [*await record_calls(spool, 10), begun]
    start = time.monotonic()
    await sender.stop(0.3)
    took = time.monotonic() - start
    spool.close()
    server = server_of(ledger, address)
    await server.start()

    async with open_channel(address) as next_channel:
        next_spool = Spool.open(tmp_path, SMALL)
        next_sender = Sender(next_spool.outbox, next_channel, SERVICE_TOKEN)
        next_sender.start()
        await ledger.until_it_has(11)
        await next_sender.stop(0)
        next_spool.close()
    await server.stop()

    assert took < 1
    assert list(ledger.records) == ids_of(records)
    assert sorted(epoch for _, epoch in ledger.committed) == [1, 2]


@pytest.mark.usefixtures("server")
async def test_a_wrong_service_token_loses_nothing(ledger: Ledger, spool: Spool, channel: grpc.aio.Channel) -> None:
    stranger = Sender(spool.outbox, channel, "wrong")
    stranger.start()
    await record_calls(spool, 3)
    await asyncio.sleep(0.3)
    await stranger.stop(0)
    refused = (len(ledger.requests), spool.outbox.depth)
    known = Sender(spool.outbox, channel, SERVICE_TOKEN)
    known.start()
    await ledger.until_it_has(3)
    await known.stop(0)

    assert refused == (0, 3)


@pytest.mark.usefixtures("server")
async def test_what_a_worker_left_that_never_came_back_is_shipped_by_another(
    ledger: Ledger, spool: Spool, channel: grpc.aio.Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SWEEP_SECONDS", 0.05)
    second_worker = Spool.open(tmp_path, SMALL)
    cut_off = a_begun()
    second_worker.begin(cut_off, credit_funded=True)
    records = await record_calls(second_worker, 10)
    own = await record_calls(spool, 1)
    second_worker.close()

    sweeper = Sweeper(tmp_path, SMALL, channel, SERVICE_TOKEN)
    sweeper.start()
    await ledger.until_it_has(11)
    await until(lambda: not list(second_worker.directory.glob("*.segment")))
    await sweeper.stop()

    assert list(ledger.records) == ids_of([*records, cut_off])
    assert spool.outbox.depth == len(own)


@pytest.mark.parametrize("failure_count", [1, 2, 5, 6, 1_000])
def test_retries_wait_longer_and_longer_but_never_long(failure_count: int) -> None:
    waits = [retry_seconds(failure_count) for _ in range(100)]

    assert min(waits) >= RETRY_SECONDS_MIN
    assert max(waits) <= min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2**failure_count)
    assert len(set(waits)) > 1
