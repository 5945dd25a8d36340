"""When a provider fails another one answers, with the right key, and every try is on the record."""

import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import directory_service_pb2, usage_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord

CREDITS, OWN_KEY = usage_pb2.FUNDING_CREDITS, usage_pb2.FUNDING_OWN_KEY
OWN_KEYS, HYBRID = directory_service_pb2.PROJECT_MODE_OWN_KEYS, directory_service_pb2.PROJECT_MODE_HYBRID


def tries(record: UsageRecord) -> list[tuple[str, int, str]]:
    return [(attempt.provider, attempt.status, attempt.error_type) for attempt in record.attempts]


def fundings(record: UsageRecord) -> list[tuple[str, int]]:
    return [(attempt.provider, attempt.funding) for attempt in record.attempts]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
async def test_another_provider_answers_when_the_first_cannot(
    router: Router, ledger: FakeLedger, status: int, streamed: bool
) -> None:
    answer = await router.chat(ledger.grant(), f"Hello simulate:status={status}@openai", stream=streamed)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert (answer.headers["x-tollgate-provider"], answer.headers["x-tollgate-attempts"]) == ("azure", "2")
    assert tries(record) == [("openai", status, "status"), ("azure", 200, "")]
    assert (record.outcome, record.provider) == (usage_pb2.OUTCOME_SUCCESS, "azure")


@pytest.mark.parametrize(
    ("directive", "status", "error_type"),
    [("body=html", 200, "bad_answer"), ("body=half", 200, "bad_answer"), ("break_after=0", 200, "broken_stream")],
)
async def test_an_answer_that_is_none_is_not_passed_on(
    router: Router, ledger: FakeLedger, directive: str, status: int, error_type: str
) -> None:
    answer = await router.chat(ledger.grant(), f"Hello simulate:{directive}@openai")
    record = await ledger.record(answer.request_id)

    assert (answer.status, answer.json["model"]) == (200, "deployment-7")
    assert tries(record)[0] == ("openai", status, error_type)


async def test_a_provider_that_cannot_be_reached_is_passed_over(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), model="gpt-rescued")

    assert answer.status == 200
    assert tries(await ledger.record(answer.request_id)) == [("away", 0, "connect_error"), ("groq", 200, "")]


async def test_a_provider_that_does_not_answer_in_time_is_a_timeout(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:delay_ms=3000", model="llama")
    record = await ledger.record(answer.request_id)

    assert (answer.status, answer.json["error"]["type"]) == (502, "provider_error")
    assert (record.outcome, record.status, record.error_type) == (usage_pb2.OUTCOME_TIMEOUT, 502, "timeout")
    assert tries(record) == [("groq", 0, "timeout")]


async def test_when_every_provider_fails_it_is_a_502_that_says_when_to_come_back(
    router: Router, ledger: FakeLedger
) -> None:
    # Own keys, so that nobody else has to wait for these.
    key = ledger.grant(own_keys={"openai": "sk-own-1", "azure": "sk-own-2"}, project_mode=OWN_KEYS)
    answer = await router.chat(key, "Hello simulate:status=503 simulate:retry_after=7")
    record = await ledger.record(answer.request_id)

    assert (answer.status, answer.headers["retry-after"]) == (502, "7")
    assert answer.json["error"] == {
        "message": "azure answered 503; no other provider could answer.",
        "type": "provider_error",
        "code": "provider_failed",
    }
    assert tries(record) == [("openai", 503, "status"), ("azure", 503, "status")]
    assert (record.outcome, record.status) == (usage_pb2.OUTCOME_PROVIDER_ERROR, 502)
    assert not record.HasField("usage")


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_request_the_provider_calls_wrong_comes_back_in_its_words_and_is_not_tried_again(
    router: Router, ledger: FakeLedger, status: int
) -> None:
    answer = await router.chat(ledger.grant(), f"Hello simulate:status={status}")
    record = await ledger.record(answer.request_id)

    assert (answer.status, answer.json["error"]["message"]) == (status, "failing, as asked")
    assert tries(record) == [("openai", status, "status")]
    assert (record.outcome, record.status) == (usage_pb2.OUTCOME_CLIENT_ERROR, status)


async def test_what_a_content_filter_refuses_is_recorded_as_that(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:status=400 simulate:error_code=content_filter")

    assert answer.status == 400
    assert (await ledger.record(answer.request_id)).outcome == usage_pb2.OUTCOME_CONTENT_REJECTED


async def test_a_platform_key_that_is_refused_is_our_fault_and_never_a_401(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), model="gpt-refused")

    assert (answer.status, answer.json["error"]["type"]) == (502, "provider_error")
    assert tries(await ledger.record(answer.request_id)) == [("wrongkey", 401, "status")]


async def test_a_project_of_own_keys_calls_with_them_and_not_on_credit(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"azure": "sk-own-azure"}, project_mode=OWN_KEYS, credit_available=False)
    answer = await router.chat(key)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert fundings(record) == [("azure", OWN_KEY)]
    assert record.funding == OWN_KEY


async def test_hybrid_pays_with_the_own_key_while_it_works(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=HYBRID))

    assert fundings(await ledger.record(answer.request_id)) == [("openai", OWN_KEY)]


async def test_hybrid_goes_on_with_credit_when_the_own_key_is_refused(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(own_keys={"openai": "sk-wrong"}, project_mode=HYBRID))
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert fundings(record) == [("openai", OWN_KEY), ("openai", CREDITS)]
    assert (record.funding, record.attempts[0].status) == (CREDITS, 401)


async def test_hybrid_leaves_a_provider_that_is_down_without_trying_credit_there(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=HYBRID)
    answer = await router.chat(key, "Hello simulate:status=503@openai")

    assert fundings(await ledger.record(answer.request_id)) == [("openai", OWN_KEY), ("azure", CREDITS)]


async def test_an_own_key_sealed_for_somebody_else_counts_as_missing(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"openai": "sk-own-good"}, project_mode=OWN_KEYS)
    ledger.swap_organization(key)

    assert (await router.chat(key)).json["error"]["code"] == "own_key_missing"
