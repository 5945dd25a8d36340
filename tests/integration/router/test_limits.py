"""Calls and tokens per minute, and calls at the same time."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings, RateLimit

TWO_CALLS = RateLimit(requests_per_minute=2)


def assert_limited(answer: Answer) -> None:
    assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")
    assert answer.json["error"]["code"] == "rate_limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 61


async def test_a_call_too_many_is_a_429_that_says_when_to_come_back_and_is_recorded(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant(rate_limit=TWO_CALLS)
    first, second, third = [await router.chat(key) for _ in range(3)]
    record = await ledger.record(third.request_id)

    assert [each.headers["x-ratelimit-remaining-requests"] for each in (first, second, third)] == ["1", "0", "0"]
    assert_limited(third)
    assert "This key is limited to 2 calls a minute" in third.json["message"]
    assert (record.outcome, record.status, len(record.attempts)) == (usage_pb2.OUTCOME_REFUSED, 429, 0)


async def test_tokens_count_as_the_provider_reports_them(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(rate_limit=RateLimit(tokens_per_minute=1_000))
    await router.chat(key, "Hello simulate:prompt=700 simulate:tokens=100")
    second = await router.chat(key, "Hello simulate:prompt=700 simulate:tokens=100", stream=True)
    third = await router.chat(key)

    assert 150 <= int(second.headers["x-ratelimit-remaining-tokens"]) <= 200
    assert_limited(third)


async def test_all_keys_of_a_project_share_its_limit(router: Router, ledger: FakeLedger) -> None:
    settings = ProjectSettings(rate_limit=TWO_CALLS)
    keys = [ledger.grant(organization_id="0199-acme", project_settings=settings) for _ in range(3)]
    answers = [await router.chat(key) for key in keys]

    assert [answer.status for answer in answers] == [200, 200, 429]


@pytest.mark.parametrize(
    ("members", "headers"),
    [({"user": "anna"}, {}), ({}, {"x-tollgate-user": "anna"})],
    ids=["member", "header"],
)
async def test_an_end_user_is_limited_alone(
    router: Router, ledger: FakeLedger, members: Mapping[str, str], headers: Mapping[str, str]
) -> None:
    key = ledger.grant(project_settings=ProjectSettings(end_user_rate_limit=TWO_CALLS))
    answers = [await router.chat(key, headers=headers, **members) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (await router.chat(key, user="bert", headers={"x-tollgate-user": "bert"})).status == 200
    assert (await router.chat(key)).status == 200


async def test_so_many_calls_of_a_key_run_at_the_same_time(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(rate_limit=RateLimit(concurrent_calls=2))
    slow = [asyncio.create_task(router.chat(key, "Hello simulate:delay_ms=500", stream=True)) for _ in range(2)]
    await asyncio.sleep(0.2)
    third = await router.chat(key)
    await asyncio.gather(*slow)

    assert_limited(third)
    assert (await router.chat(key)).status == 200


async def test_an_address_is_limited_whatever_its_keys_and_is_the_one_our_proxy_saw(
    start_router: StartRouter, ledger: FakeLedger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    policies = "[limits.address]\nrequests_per_minute = 2\n"
    async with start_router(
        tmp_path_factory.mktemp("limits"), policies=policies, TOLLGATE_ROUTER_TRUSTED_PROXIES="1"
    ) as router:

        async def chat(forwarded_for: str) -> int:
            return (await router.chat(ledger.grant(), headers={"x-forwarded-for": forwarded_for})).status

        statuses = [await chat(f"10.0.0.{number}, 192.0.2.1") for number in range(3)]
        other = await chat("192.0.2.1, 192.0.2.2")

    assert (statuses, other) == ([200, 200, 429], 200)


async def test_a_worker_takes_so_many_calls_and_sends_the_rest_away(
    start_router: StartRouter, ledger: FakeLedger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with start_router(tmp_path_factory.mktemp("limits"), TOLLGATE_ROUTER_CALLS_MAX="2") as router:
        key = ledger.grant()
        slow = [asyncio.create_task(router.chat(key, "Hello simulate:delay_ms=500")) for _ in range(2)]
        await asyncio.sleep(0.2)
        third = await router.chat(key)
        health = await router.send("GET", "/health", None, None)
        answers = await asyncio.gather(*slow)

    assert (third.status, third.headers["retry-after"]) == (503, "1")
    assert health.status == 200
    assert [answer.status for answer in answers] == [200, 200]
