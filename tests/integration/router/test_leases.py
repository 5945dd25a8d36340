"""A router that leases credit: each call that credit pays for is covered before a provider is asked."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from uuid import uuid4

import orjson
import pytest

from services.common.money import pico_from_usd
from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import directory_service_pb2, usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import SpendingLimit

HYBRID = directory_service_pb2.PROJECT_MODE_HYBRID
OWN_KEYS = directory_service_pb2.PROJECT_MODE_OWN_KEYS

HELLO = {"messages": [{"role": "user", "content": "Hello there"}]}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt-4o", **HELLO},
    "/v1/responses": {"model": "gpt-5-mini", "input": "Hello there"},
    "/v1/messages": {"model": "claude-sonnet", "max_tokens": 100, **HELLO},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "Hello there"},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "A toll gate"},
}
STREAM, STREAMED = {"stream": True}, ("/v1/chat/completions", "/v1/responses", "/v1/messages")


@pytest.fixture(scope="module")
async def leasing(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    async with start_router(tmp_path_factory.mktemp("leasing")) as router:
        yield router


@pytest.fixture
async def absence(ledger: FakeLedger) -> AsyncIterator[None]:
    """Lets the ledger come back whatever the test does."""
    yield
    await ledger.stop()
    await ledger.start()


def with_credit(ledger: FakeLedger, key: str, usd: str) -> str:
    ledger.credit.worth_pico[ledger.organization_of(key)] = pico_from_usd(usd)
    return key


async def test_the_record_names_the_lease_and_what_the_call_can_have_cost(leasing: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()

    answer = await leasing.chat(key, "simulate:tokens=20 simulate:prompt=40", max_tokens=100)
    record = await ledger.record(answer.request_id)

    asked = next(one for one in ledger.credit.acquired if one.organization_id == record.organization_id)
    assert record.lease_id == asked.lease_id
    # 20 tokens at 10 USD per million, 40 at 2.50, and a line's rounding each.
    assert pico_from_usd(record.reserved) == pico_from_usd("0.0003") + 16


async def test_near_the_end_the_record_names_all_that_was_reserved(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(), "0.002")

    record = await ledger.record((await leasing.chat(key, max_tokens=100)).request_id)

    # 100 tokens of output, and some of input.
    assert 0.001 < float(record.reserved) < 0.002


async def test_a_call_that_cannot_be_covered_is_refused_before_anybody_is_asked(
    leasing: Router, ledger: FakeLedger
) -> None:
    key = with_credit(ledger, ledger.grant(), "0.005")

    refused = await leasing.chat(key, model="gpt-4o-mini", max_tokens=1_000)
    covered = await leasing.chat(key, max_tokens=100)

    assert (refused.status, refused.json["error"]["code"]) == (402, "insufficient_credits")
    record = await ledger.record(refused.request_id)
    assert (record.outcome, len(record.attempts), record.lease_id) == (usage_pb2.OUTCOME_REFUSED, 0, "")
    assert covered.status == 200


@pytest.mark.parametrize("path", CALLS)
async def test_calls_of_every_kind_are_covered(leasing: Router, ledger: FakeLedger, path: str) -> None:
    answer = await leasing.send("POST", path, orjson.dumps(CALLS[path]), ledger.grant())
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert record.lease_id
    assert pico_from_usd(record.reserved) > 0


@pytest.mark.parametrize(("path", "members"), [*((path, {}) for path in CALLS), *((path, STREAM) for path in STREAMED)])
async def test_calls_of_every_kind_are_refused_before_anybody_is_asked_when_they_are_not_covered(
    leasing: Router, ledger: FakeLedger, path: str, members: dict[str, Any]
) -> None:
    key = with_credit(ledger, ledger.grant(), "0.0000001")

    refused = await leasing.send("POST", path, orjson.dumps(CALLS[path] | members), key)
    record = await ledger.record(refused.request_id)

    assert refused.status == 402
    assert (record.outcome, len(record.attempts), record.lease_id) == (usage_pb2.OUTCOME_REFUSED, 0, "")


async def test_a_provider_that_credit_does_not_cover_is_passed_by_for_one_that_it_does(
    leasing: Router, ledger: FakeLedger
) -> None:
    # Without a limit of the call's own, openai may write 131,072 tokens, and azure 5.
    key = with_credit(ledger, ledger.grant(), "0.01")

    answer = await leasing.chat(key)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert [attempt.provider for attempt in record.attempts] == ["azure"]
    assert 0 < float(record.reserved) < 0.01


async def test_what_a_call_did_not_cost_is_free_again_when_it_is_recorded(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(), "0.002")

    statuses = [(await leasing.chat(key, max_tokens=100)).status for _ in range(5)]

    assert statuses == [200] * 5


async def test_a_call_waits_for_credit_that_a_running_call_holds(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(), "0.002")

    slow = asyncio.create_task(leasing.chat(key, "simulate:delay_ms=700", max_tokens=100))
    await asyncio.sleep(0.3)
    start = time.monotonic()
    waited = await leasing.chat(key, max_tokens=100)

    assert (waited.status, (await slow).status) == (200, 200)
    assert time.monotonic() - start > 0.2


async def test_credit_that_is_held_for_long_is_a_503_and_no_402(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(), "0.002")

    slow = asyncio.create_task(leasing.chat(key, "simulate:delay_ms=4000", max_tokens=100))
    await asyncio.sleep(0.3)
    refused = await leasing.chat(key, max_tokens=100)
    await slow

    assert refused.status == 503
    assert int(refused.headers["retry-after"]) >= 1


async def test_an_own_key_needs_no_credit(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=OWN_KEYS), "0")

    answer = await leasing.chat(key)

    assert answer.status == 200
    assert (await ledger.record(answer.request_id)).lease_id == ""


async def test_hybrid_reserves_nothing_while_its_own_key_answers(leasing: Router, ledger: FakeLedger) -> None:
    key = with_credit(ledger, ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=HYBRID), "0")

    answer = await leasing.chat(key)

    assert answer.status == 200
    assert (await ledger.record(answer.request_id)).lease_id == ""
    assert ledger.organization_of(key) not in {one.organization_id for one in ledger.credit.acquired}


async def test_hybrid_reserves_when_it_falls_through_to_credit(leasing: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"openai": "sk-wrong"}, project_mode=HYBRID)

    answer = await leasing.chat(key, max_tokens=100)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY, usage_pb2.FUNDING_CREDITS]
    assert record.lease_id


async def test_hybrid_that_credit_does_not_cover_ends_with_what_the_own_key_was_told(
    leasing: Router, ledger: FakeLedger
) -> None:
    key = with_credit(ledger, ledger.grant(own_keys={"openai": "sk-wrong"}, project_mode=HYBRID), "0.0001")

    answer = await leasing.chat(key, max_tokens=100)
    record = await ledger.record(answer.request_id)

    assert answer.status == 502
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY]


async def test_a_key_with_a_limit_leases_for_itself(leasing: Router, ledger: FakeLedger) -> None:
    limit = SpendingLimit(amount="1", period=directory_service_pb2.SPENDING_PERIOD_DAY)
    limited, free = ledger.grant(spending_limit=limit), ledger.grant()

    for key in (limited, free):
        await leasing.chat(key)

    names = {one.organization_id: one.api_key_id for one in ledger.credit.acquired}
    assert names[ledger.organization_of(limited)] != ""
    assert names[ledger.organization_of(free)] == ""


@pytest.mark.parametrize("whose", ["key", "organization"])
async def test_a_call_beyond_a_spending_limit_is_a_402_that_says_whose_limit_it_is(
    leasing: Router, ledger: FakeLedger, whose: str
) -> None:
    limit = SpendingLimit(amount="0.002", period=directory_service_pb2.SPENDING_PERIOD_DAY)
    key_id = str(uuid4())
    key = ledger.grant(spending_limit=limit, api_key_id=key_id) if whose == "key" else ledger.grant()
    ledger.credit.limit_pico[key_id if whose == "key" else ledger.organization_of(key)] = pico_from_usd(limit.amount)

    refused = await leasing.chat(key, model="gpt-4o-mini", max_tokens=1_000)
    covered = await leasing.chat(key, max_tokens=100)

    assert (refused.status, refused.json["error"]["code"]) == (402, "insufficient_credits")
    assert f"the spending limit of this {whose} leaves 0.002 USD" in refused.json["error"]["message"]
    assert covered.status == 200


@pytest.mark.usefixtures("absence")
async def test_while_the_ledger_is_away_calls_go_on_from_leases_and_then_nobody_can_tell(
    leasing: Router, ledger: FakeLedger
) -> None:
    key = with_credit(ledger, ledger.grant(), "1")
    await leasing.chat(key, max_tokens=100)
    await ledger.stop()
    # A lease of 0.1 USD covers so many calls at their real cost, though only fifty at their worst at the same time.
    statuses = [(await leasing.chat(key, max_tokens=100)).status for _ in range(120)]
    at_once = await asyncio.gather(*(leasing.chat(key, max_tokens=100) for _ in range(120)))
    refused = await leasing.chat(key, max_tokens=9_000)
    await ledger.start()

    assert statuses == [200] * 120
    assert [answer.status for answer in at_once] == [200] * 120
    assert (refused.status, refused.json["error"]["code"]) == (503, "service_unavailable")
    assert int(refused.headers["retry-after"]) >= 1


async def test_what_a_killed_router_owed_is_shipped_by_the_next_which_says_so(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    key = ledger.grant()
    async with start_router(tmp_path) as router:
        lost = asyncio.create_task(router.chat(key, "simulate:delay_ms=20000", max_tokens=100))
        await asyncio.sleep(0.5)
        router.process.send_signal(SIGKILL)
        await asyncio.gather(lost, return_exceptions=True)
        router.process.wait()
    said = len(ledger.credit.ended)
    async with start_router(tmp_path):
        (record,) = await ledger.records_of(key)
        async with asyncio.timeout(10):
            while len(ledger.credit.ended) == said:  # noqa: ASYNC110 the ledger tells nobody
                await asyncio.sleep(0.05)

    asked = next(one for one in ledger.credit.acquired if one.organization_id == record.organization_id)
    assert (record.outcome, record.lease_id) == (usage_pb2.OUTCOME_UNKNOWN, asked.lease_id)
    ended = ledger.credit.ended[-1]
    assert (ended.producer_id, ended.before_epoch) == (asked.producer_id, asked.epoch + 1)


async def test_a_router_that_stops_gives_back_what_it_has_leased(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    key = ledger.grant()
    async with start_router(tmp_path) as router:
        await router.chat(key, max_tokens=100)
        held_pico = ledger.credit.held_pico(ledger.organization_of(key))
        router.process.send_signal(SIGTERM)
        await asyncio.to_thread(router.process.wait)

    assert held_pico > 0
    assert ledger.credit.held_pico(ledger.organization_of(key)) == 0
