"""Answers that explain themselves, where that is asked for."""

import orjson
import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tests.integration.router.test_streams import DONE, events
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings

ORDER = {"x-tollgate-metadata-order": "7", "x-tollgate-workflow": "checkout"}
META, ENVELOPE = {"x-tollgate-answer": "meta"}, {"x-tollgate-answer": "envelope"}


async def test_unless_asked_for_an_answer_is_the_provider_s_byte_for_byte(router: Router, ledger: FakeLedger) -> None:
    raw = await router.chat(ledger.grant())

    assert "meta" not in raw.json
    assert raw.body == (await router.chat(ledger.grant(), headers={"x-tollgate-answer": "raw"})).body


async def test_meta_comes_after_the_provider_s_own_members(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    raw = await router.chat(key, "Hello simulate:status=503@openai")
    answer = await router.chat(key, "Hello simulate:status=503@openai", headers={**META, **ORDER})
    meta = answer.json["meta"]

    assert answer.body.startswith(raw.body[:-1])
    assert [*answer.json][-2:] == ["customer_data", "meta"]
    assert answer.json["customer_data"] == {"order": "7"}
    assert (meta["status"], meta["request_id"], meta["workflow"]) == (200, answer.request_id, "checkout")
    assert (meta["used_provider"], meta["used_model"], meta["cached"]) == ("azure", "gpt-4o", False)
    assert (meta["usage"]["input_tokens"], meta["usage"]["output_tokens"]) == (2, 8)
    assert isinstance(meta["duration_ms"], int)
    assert [(each["order"], each["provider"], each["status"], each["funding"]) for each in meta["attempts"]] == [
        (1, "openai", 503, "credits"),
        (2, "azure", 200, "credits"),
    ]


async def test_an_envelope_holds_the_answer_and_what_happened(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), headers=ENVELOPE)

    assert [*answer.json] == ["data", "customer_data", "meta"]
    assert answer.json["data"]["choices"][0]["message"]["content"].startswith("word-1")
    assert answer.json["customer_data"] == {}


@pytest.mark.parametrize(
    ("prompt", "status", "attempts"),
    [("Hello simulate:status=400", 400, 1), ("Hello simulate:status=503", 502, 2)],
    ids=["refused by the provider", "failed everywhere"],
)
async def test_failures_have_an_envelope_too(
    router: Router, ledger: FakeLedger, prompt: str, status: int, attempts: int
) -> None:
    answer = await router.chat(ledger.grant(), prompt, headers=ENVELOPE)

    assert answer.status == status
    assert answer.json["data"]["error"]["message"]
    assert (answer.json["meta"]["status"], len(answer.json["meta"]["attempts"])) == (status, attempts)
    assert answer.json["meta"]["usage"] is None
    assert answer.headers["x-tollgate-attempts"] == str(attempts)


async def test_a_refusal_of_ours_has_an_envelope_too(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(credit_available=False), headers=ENVELOPE)

    assert (answer.status, answer.json["data"]["error"]["type"]) == (402, "insufficient_credits")
    assert (answer.json["meta"]["status"], answer.json["meta"]["attempts"]) == (402, [])


@pytest.mark.parametrize("headers", [META, ENVELOPE], ids=["meta", "envelope"])
async def test_a_stream_says_it_in_the_last_chunk_before_the_end_marker(
    router: Router, ledger: FakeLedger, headers: dict[str, str]
) -> None:
    answer = await router.chat(ledger.grant(), headers={**headers, **ORDER}, stream=True)
    last = events(answer)[-1]

    assert answer.body.endswith(DONE)
    assert last["choices"] == [] and last["object"] == "chat.completion.chunk"
    assert last["customer_data"] == {"order": "7"}
    assert orjson.loads(orjson.dumps(last["meta"]))["usage"]["output_tokens"] == 8
    assert all("meta" not in event for event in events(answer)[:-1])


async def test_a_project_may_want_it_always_and_a_call_not(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=ProjectSettings(answer_format=directory_service_pb2.ANSWER_FORMAT_META))

    assert "meta" in (await router.chat(key)).json
    assert "meta" not in (await router.chat(key, headers={"x-tollgate-answer": "raw"})).json


async def test_a_cached_answer_explains_the_call_it_answers(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_settings=ProjectSettings(cache_seconds=60))
    await router.chat(key)
    answer = await router.chat(key, headers={**META, **ORDER})

    assert (answer.json["meta"]["cached"], answer.json["meta"]["attempts"]) == (True, [])
    assert (answer.json["meta"]["request_id"], answer.json["customer_data"]) == (answer.request_id, {"order": "7"})


async def test_a_format_there_is_not_is_refused(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), headers={"x-tollgate-answer": "yaml"})

    assert (answer.status, "x-tollgate-answer" in answer.json["message"]) == (400, True)
