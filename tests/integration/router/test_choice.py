"""Which provider is asked: what projects prefer, prices, health, and when a provider wants to be left alone."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings

POLICIES = """
[defaults]
cooldown_seconds = 2
[auto]
models = ["gpt-4o", "gpt-4o-mini"]
order = "price"
"""
BY_PRICE = ProjectSettings(provider_order=directory_service_pb2.PROVIDER_ORDER_PRICE)
HYBRID = directory_service_pb2.PROJECT_MODE_HYBRID


@pytest.fixture
async def fresh_router(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    """A router that has seen nothing yet."""
    async with start_router(tmp_path_factory.mktemp("choice"), policies=POLICIES) as router:
        yield router


async def chosen(router: Router, key: str, expected: tuple[str, str], model: str = "gpt-4o") -> Answer:
    """The first call that goes where it should, once the router has learnt the prices."""
    async with asyncio.timeout(10):
        while True:
            answer = await router.chat(key, model=model)
            if (provider(answer), answer.headers["x-tollgate-model"]) == expected:
                return answer
            await asyncio.sleep(0.1)


def provider(answer: Answer) -> str:
    return answer.headers["x-tollgate-provider"]


async def test_a_project_s_preferred_provider_is_asked_first(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=ProjectSettings(preferred_providers=["azure"]))

    assert provider(await router.chat(key)) == "azure"


async def test_by_price_the_cheapest_is_asked_first(router: Router, ledger: FakeLedger) -> None:
    assert await chosen(router, ledger.grant(project_settings=BY_PRICE), ("azure", "gpt-4o"))


async def test_auto_is_the_cheapest_of_its_models(fresh_router: Router, ledger: FakeLedger) -> None:
    answer = await chosen(fresh_router, ledger.grant(), ("openai", "gpt-4o-mini"), model="auto")
    record = await ledger.record(answer.request_id)

    assert (record.requested_model, record.model) == ("auto", "gpt-4o-mini")


async def test_auto_goes_on_with_another_model_when_one_fails(fresh_router: Router, ledger: FakeLedger) -> None:
    answer = await fresh_router.chat(ledger.grant(), "Hello simulate:status=503@openai", model="auto")

    assert (provider(answer), answer.headers["x-tollgate-model"]) == ("azure", "gpt-4o")


async def test_without_a_word_in_the_file_there_is_no_auto(router: Router, ledger: FakeLedger) -> None:
    assert (await router.chat(ledger.grant(), model="auto")).json["error"]["code"] == "model_not_found"


async def test_a_provider_that_fails_is_passed_over_until_it_has_cooled_down(
    fresh_router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    for _ in range(3):
        await fresh_router.chat(key, "Hello simulate:status=503@openai")
    cooling = await fresh_router.chat(key)
    health = (await fresh_router.send("GET", "/health", None, None)).json["providers"]
    await asyncio.sleep(2.1)
    cooled = await fresh_router.chat(key, "Hello simulate:status=503@azure")

    assert (provider(cooling), cooling.headers["x-tollgate-attempts"]) == ("azure", "1")
    assert next(each for each in health if each["name"] == "openai")["well"] is False
    assert provider(cooled) == "openai"


async def test_a_stream_that_breaks_off_counts_against_its_provider(fresh_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    for _ in range(3):
        await fresh_router.chat(key, "Hello simulate:break_after=2@openai", stream=True)

    assert provider(await fresh_router.chat(key)) == "azure"


async def test_a_provider_is_not_asked_again_before_it_said(fresh_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    throttled = "Hello simulate:status=429@openai simulate:retry_after=3@openai"
    first = await fresh_router.chat(key, throttled)
    second = await fresh_router.chat(key, throttled)
    pinned = await fresh_router.chat(key, model="openai/gpt-4o")
    record = await ledger.record(pinned.request_id)
    await asyncio.sleep(3)
    later = await fresh_router.chat(key, model="openai/gpt-4o")

    assert (first.headers["x-tollgate-attempts"], second.headers["x-tollgate-attempts"]) == ("2", "1")
    assert (pinned.status, pinned.json["error"]["type"]) == (429, "rate_limit_error")
    assert pinned.headers["retry-after"] in ("2", "3")
    assert (record.status, len(record.attempts)) == (429, 0)
    assert later.status == 200


async def test_hybrid_pays_with_credit_while_the_own_key_is_throttled(fresh_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=HYBRID)
    await fresh_router.chat(key, "Hello simulate:status=429@openai simulate:retry_after=60@openai", model="gpt-4o")
    answer = await fresh_router.chat(key, model="openai/gpt-4o")
    record = await ledger.record(answer.request_id)

    # The simulator throttled both keys, the own one and the platform's.
    assert (answer.status, len(record.attempts)) == (429, 0)
    assert (
        provider(await fresh_router.chat(ledger.grant(own_keys={"openai": "sk-own-2"}, project_mode=HYBRID)))
        == "openai"
    )


async def test_hybrid_tries_every_own_key_before_credit(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"openai": "sk-wrong", "azure": "sk-own-good"}, project_mode=HYBRID)
    answer = await router.chat(key)
    record = await ledger.record(answer.request_id)

    assert [(each.provider, each.funding) for each in record.attempts] == [("openai", 2), ("azure", 2)]
