"""What is retained is charged in every funding, so credit covers it before it is kept; without, the call goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from services.common.money import pico_from_usd
from services.router.credit.worst_case import ROUNDING_PICO
from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings
from tollgate.ledger.v1.usage_pb2 import (
    FUNDING_CREDITS,
    FUNDING_OWN_KEY,
    RECORD_FLAG_PAYLOAD_NOT_COVERED,
    UsageRecord,
)

OWN: dict[str, Any] = {
    "own_keys": {"openai": "sk-own-good"},
    "project_mode": directory_service_pb2.PROJECT_MODE_OWN_KEYS,
    "payload_retained": True,
}
CACHED: dict[str, Any] = {"project_settings": ProjectSettings(cache_seconds=60), "payload_retained": True}
# Both ask for these tokens, 60 in all, which cost 0.01 USD per million to keep.
PROMPT, STORED_USD = "simulate:tokens=20 simulate:prompt=40", "0.0000006"


@pytest.fixture(scope="module")
async def storing(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    async with start_router(tmp_path_factory.mktemp("storing")) as router:
        yield router


def with_credit(ledger: FakeLedger, key: str, usd: str) -> str:
    ledger.credit.worth_pico[ledger.organization_of(key)] = pico_from_usd(usd)
    return key


def assert_nothing_is_kept(record: UsageRecord) -> None:
    assert list(record.flags) == [RECORD_FLAG_PAYLOAD_NOT_COVERED]
    assert not record.payload_retained
    assert not record.HasField("payload")


def assert_it_is_kept(record: UsageRecord) -> None:
    assert not record.flags
    assert record.payload_retained
    assert record.payload.request_body
    assert record.payload.response_body


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_call_with_an_own_key_names_what_its_storage_can_cost(
    storing: Router, ledger: FakeLedger, streamed: bool
) -> None:
    answer = await storing.chat(ledger.grant(**OWN), PROMPT, stream=streamed)
    record = await ledger.record(answer.request_id)

    assert_it_is_kept(record)
    assert record.funding == FUNDING_OWN_KEY
    assert record.lease_id
    assert pico_from_usd(record.reserved) == pico_from_usd(STORED_USD) + ROUNDING_PICO


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_without_credit_an_own_key_goes_on_and_nothing_is_kept(
    storing: Router, ledger: FakeLedger, streamed: bool
) -> None:
    key = with_credit(ledger, ledger.grant(**OWN), "0")

    answers = [await storing.chat(key, stream=streamed) for _ in range(2)]
    records = [await ledger.record(answer.request_id) for answer in answers]

    assert {answer.status for answer in answers} == {200}
    for record in records:
        assert_nothing_is_kept(record)
        assert record.lease_id == ""


async def test_while_running_calls_hold_the_credit_an_own_key_does_not_wait_for_long(
    storing: Router, ledger: FakeLedger
) -> None:
    # Enough for one call that may write 1,000 tokens.
    key = with_credit(ledger, ledger.grant(**OWN), "0.00002")

    slow = asyncio.create_task(storing.chat(key, "simulate:delay_ms=3000", max_tokens=1_000))
    await asyncio.sleep(0.3)
    loop = asyncio.get_running_loop()
    start = loop.time()
    quick = await storing.chat(key, max_tokens=1_000)
    seconds = loop.time() - start

    assert quick.status == 200
    assert seconds < 2
    assert_nothing_is_kept(await ledger.record(quick.request_id))
    assert_it_is_kept(await ledger.record((await slow).request_id))


async def test_while_the_ledger_is_away_an_own_key_goes_on_from_a_lease_or_without_storage(
    storing: Router, ledger: FakeLedger
) -> None:
    leased, other = ledger.grant(**OWN), ledger.grant(**OWN)
    await storing.chat(leased, max_tokens=100)
    await storing.send("GET", "/v1/models", None, other)
    await ledger.stop()
    try:
        from_lease = await storing.chat(leased, max_tokens=100)
        without = await storing.chat(other, max_tokens=100)
    finally:
        await ledger.start()

    assert (from_lease.status, without.status) == (200, 200)
    assert_it_is_kept(await ledger.record(from_lease.request_id))
    assert_nothing_is_kept(await ledger.record(without.request_id))


async def test_hybrid_that_falls_through_to_credit_names_what_covers_the_whole_call(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    hybrid = directory_service_pb2.PROJECT_MODE_HYBRID
    key = ledger.grant(own_keys={"openai": "sk-wrong"}, project_mode=hybrid, payload_retained=True)
    async with start_router(tmp_path) as router:
        answer = await router.chat(key, PROMPT, max_tokens=100)
        record = await ledger.record(answer.request_id)
        router.process.send_signal(SIGTERM)
        await asyncio.to_thread(router.process.wait)

    assert_it_is_kept(record)
    assert [attempt.funding for attempt in record.attempts] == [FUNDING_OWN_KEY, FUNDING_CREDITS]
    # 20 tokens at 10 USD per million, 40 at 2.50, and their storage.
    assert pico_from_usd(record.reserved) == pico_from_usd("0.0003") + pico_from_usd(STORED_USD) + ROUNDING_PICO
    # What was reserved for storage alone is given back with the rest.
    assert ledger.credit.held_pico(ledger.organization_of(key)) == 0


async def test_an_answer_that_is_given_again_names_what_its_storage_costs(storing: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(**CACHED)

    answers = [await storing.chat(key, PROMPT) for _ in range(2)]
    record = await ledger.record(answers[1].request_id)

    assert_it_is_kept(record)
    assert record.cache_hit
    assert record.lease_id
    assert pico_from_usd(record.reserved) == pico_from_usd(STORED_USD) + ROUNDING_PICO


async def test_without_credit_an_answer_is_given_again_and_not_kept(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    key = with_credit(ledger, ledger.grant(**CACHED), "0.002")
    async with start_router(tmp_path) as router:
        first = await router.chat(key, max_tokens=100)
        await ledger.record(first.request_id)
        with_credit(ledger, key, "0")
        second = await router.chat(key, max_tokens=100)
        record = await ledger.record(second.request_id)

    assert (first.status, second.status) == (200, 200)
    assert record.cache_hit
    assert_nothing_is_kept(record)
