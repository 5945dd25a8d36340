"""A plain call: what the client gets, and what is recorded."""

import asyncio
import hashlib

import pytest

from services.common.uuid7 import parse_uuid7, time_of
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body
from tollgate.ledger.v1 import usage_pb2


async def test_the_answer_is_the_provider_s_byte_for_byte_and_says_what_happened(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    answer = await router.chat(key, "Say hello to the toll gate", temperature=0)
    again = await router.chat(key, "Say hello to the toll gate", temperature=0)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["choices"][0]["message"]["content"].startswith("word-1 word-2")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(again.body).digest()
    assert answer.headers["x-tollgate-provider"] == "openai"
    assert answer.headers["x-tollgate-model"] == "gpt-4o"
    assert answer.headers["x-tollgate-attempts"] == "1"
    assert answer.headers["x-tollgate-cache"] == "miss"
    assert int(answer.headers["x-tollgate-duration-ms"]) >= 0


async def test_a_call_is_recorded_with_who_what_and_how_much(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(payload_retained=True)
    headers = {"x-tollgate-workflow": "nightly", "x-tollgate-metadata-customer": "42", "x-tollgate-metadata-run": "a"}
    answer = await router.chat(key, "one two simulate:cached=2 simulate:reasoning=3 simulate:tokens=9", headers)
    record = await ledger.record(answer.request_id)

    assert time_of(parse_uuid7(record.request_id)) == record.start_time.ToDatetime(
        tzinfo=time_of(parse_uuid7(record.request_id)).tzinfo
    )
    assert (record.project_id, record.workflow) == ("web", "nightly")
    assert dict(record.metadata) == {"customer": "42", "run": "a"}
    assert (record.requested_model, record.model, record.provider) == ("gpt-4o", "gpt-4o", "openai")
    assert (record.outcome, record.status, record.error_type) == (usage_pb2.OUTCOME_SUCCESS, 200, "")
    assert (record.funding, record.payload_retained) == (usage_pb2.FUNDING_CREDITS, True)
    assert (record.usage.input_tokens, record.usage.cached_input_tokens) == (5, 2)
    assert (record.usage.output_tokens, record.usage.reasoning_tokens) == (9, 3)
    assert record.usage_source == usage_pb2.USAGE_SOURCE_REPORTED
    assert list(record.flags) == []
    (attempt,) = record.attempts
    assert (attempt.provider, attempt.upstream_model, attempt.status, attempt.error_type) == (
        "openai",
        "gpt-4o",
        200,
        "",
    )
    assert record.latency_ms >= attempt.latency_ms >= 0
    assert record.endpoint == usage_pb2.ENDPOINT_CHAT_COMPLETIONS


async def test_the_tier_that_was_served_is_recorded(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "cheap simulate:service_tier=flex", service_tier="auto")

    assert (await ledger.record(answer.request_id)).service_tier == "flex"


async def test_a_usage_that_contradicts_itself_is_flagged(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "two words simulate:cached=600")
    record = await ledger.record(answer.request_id)

    assert record.usage.cached_input_tokens == record.usage.input_tokens == 3
    assert list(record.flags) == [usage_pb2.RECORD_FLAG_USAGE_CLAMPED]


async def test_usage_that_nobody_reports_is_estimated_and_says_so(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:usage=no simulate:tokens=10")
    record = await ledger.record(answer.request_id)

    assert record.usage_source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert record.usage.output_tokens == 30  # `word`, `-` and a number are a token each
    assert record.usage.input_tokens > 5


async def test_an_estimate_is_never_above_the_model_s_maximum(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:usage=no simulate:tokens=100", model="azure/gpt-4o")

    assert (await ledger.record(answer.request_id)).usage.output_tokens == 5


async def test_a_pinned_model_goes_to_its_provider_under_its_name_there(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), model="azure/gpt-4o")
    record = await ledger.record(answer.request_id)

    assert answer.json["model"] == "deployment-7"
    assert (record.requested_model, record.model, record.provider) == ("azure/gpt-4o", "gpt-4o", "azure")


async def test_a_key_for_all_projects_names_one_in_a_header_or_in_the_body(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_id="")
    by_header = await router.chat(key, headers={"x-tollgate-project": "lab"}, project_id="body-is-second")
    by_body = await router.chat(key, project_id="shop")

    assert (await ledger.record(by_header.request_id)).project_id == "lab"
    assert (await ledger.record(by_body.request_id)).project_id == "shop"


async def test_many_calls_at_once_are_all_recorded_once(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    answers = await asyncio.gather(*(router.chat(key, f"call {number}") for number in range(200)))
    records = [await ledger.record(answer.request_id) for answer in answers]

    assert {answer.status for answer in answers} == {200}
    assert len({record.request_id for record in records}) == 200
    assert all(record.usage.input_tokens == 2 for record in records)


async def test_the_models_that_are_configured_are_listed(router: Router, ledger: FakeLedger) -> None:
    listed = await router.send("GET", "/v1/models", None, ledger.grant())

    assert {model["id"] for model in listed.json["data"]} >= {"gpt-4o", "gpt-4o-mini", "llama"}
    assert (await router.send("GET", "/v1/models", None, None)).status == 401


async def test_the_health_names_the_providers_and_needs_no_key(router: Router) -> None:
    answer = await router.send("GET", "/health", None, None)

    assert (answer.status, answer.json["status"]) == (200, "ok")
    openai = next(each for each in answer.json["providers"] if each["name"] == "openai")
    assert (openai["well"], openai["failing_models"]) == (True, [])


async def test_calls_attempts_and_overhead_are_counted(router: Router, ledger: FakeLedger) -> None:
    await router.chat(ledger.grant(), "count me")
    metrics = (await router.client.get(router.metrics_url).build().send()).text

    text = await metrics()
    for name in ("tollgate_router_calls_total", "tollgate_router_attempts_total", "tollgate_router_overhead_seconds"):
        assert name in text


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_the_key_is_taken_from_either_header(router: Router, ledger: FakeLedger, header: str) -> None:
    key = ledger.grant()
    headers = {header: f"Bearer {key}" if header == "authorization" else key}

    answer = await router.send("POST", "/v1/chat/completions", chat_body("Hi"), None, headers)
    assert answer.status == 200
