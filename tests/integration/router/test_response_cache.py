"""Answers that are given again: at no cost, and counted as hits."""

import asyncio

import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings

CACHED = ProjectSettings(cache_seconds=2)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_the_same_request_is_answered_from_the_cache_and_recorded_as_a_hit(
    router: Router, ledger: FakeLedger, streamed: bool
) -> None:
    key = ledger.grant(project_settings=CACHED)
    first = await router.chat(key, "Hello", stream=streamed, user="anna")
    second = await router.chat(key, "Hello", stream=streamed, user="bert")
    record = await ledger.record(second.request_id)

    assert (first.headers["x-tollgate-cache"], second.headers["x-tollgate-cache"]) == ("miss", "hit")
    assert second.body == first.body
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-tollgate-attempts"] == "0"
    assert (record.cache_hit, record.outcome, record.streamed) == (True, usage_pb2.OUTCOME_SUCCESS, streamed)
    assert (record.provider, record.model, len(record.attempts)) == ("openai", "gpt-4o", 0)
    assert record.usage.output_tokens == 8


async def test_a_project_without_a_cache_has_none(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()

    assert [(await router.chat(key)).headers["x-tollgate-cache"] for _ in range(2)] == ["miss", "miss"]


async def test_a_call_may_ask_to_be_made_in_any_case(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=CACHED)
    await router.chat(key)

    assert (await router.chat(key, headers={"x-tollgate-no-cache": "1"})).headers["x-tollgate-cache"] == "miss"


async def test_an_answer_is_not_given_again_after_its_time(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=CACHED)
    await router.chat(key)
    await asyncio.sleep(2.1)

    assert (await router.chat(key)).headers["x-tollgate-cache"] == "miss"


@pytest.mark.parametrize("prompt", ["simulate:status=400", "simulate:status=503", "simulate:usage=no"])
async def test_only_successes_that_are_known_to_the_token_are_kept(
    router: Router, ledger: FakeLedger, prompt: str
) -> None:
    key = ledger.grant(project_settings=CACHED)
    answers = [await router.chat(key, prompt) for _ in range(2)]

    assert "hit" not in [answer.headers["x-tollgate-cache"] for answer in answers]


async def test_a_stream_that_broke_off_is_not_kept(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=CACHED)
    answers = [await router.chat(key, "simulate:break_after=2", stream=True) for _ in range(2)]

    assert [answer.headers["x-tollgate-cache"] for answer in answers] == ["miss", "miss"]
