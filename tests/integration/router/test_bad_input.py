"""What goes wrong on any endpoint is told in the caller's format, recorded once, and breaks nothing."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord

HI = [{"role": "user", "content": "Hi"}]
# A good body for each path; a prompt stands in it as PROMPT does.
PROMPT = "Hi"
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt-4o-mini", "messages": HI},
    "/v1/responses": {"model": "gpt-5-mini", "input": PROMPT},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": PROMPT},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": PROMPT},
    "/v1/messages": {"model": "claude-sonnet", "max_tokens": 100, "messages": HI},
}
# The same, answered in a format that is translated.
TRANSLATED: dict[str, dict[str, Any]] = {
    "anthropic": {"model": "claude-sonnet", "messages": HI},
    "gemini": {"model": "gemini-flash", "messages": HI},
}
every_path = pytest.mark.parametrize("path", GOOD)
every_answerer = pytest.mark.parametrize(
    ("path", "body"),
    [
        *(pytest.param(path, body, id=path) for path, body in GOOD.items()),
        *(pytest.param("/v1/chat/completions", body, id=f"by {name}") for name, body in TRANSLATED.items()),
    ],
)


def prompting(body: dict[str, Any], prompt: str, **members: Any) -> bytes:
    """The body with another prompt."""
    return orjson.dumps({**body, **members}).replace(b'"Hi"', orjson.dumps(prompt))


async def only_record(ledger: FakeLedger, key: str) -> UsageRecord:
    (record,) = await ledger.records_of(key)
    return record


def assert_told(answer: Answer, path: str, status: int, kind: str) -> None:
    """The error has the shape that clients of the path know."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["type"] == kind
    assert answer.json["error"]["message"]
    assert answer.json.get("type") == ("error" if path == "/v1/messages" else None)
    assert answer.request_id


@every_path
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"model": "gpt-4o", ', id="half a JSON"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'{"model": "\xff"}', id="not UTF-8"),
        pytest.param(b"{}", id="no members"),
    ],
)
async def test_a_body_that_is_none_is_a_bad_request(router: Router, ledger: FakeLedger, path: str, sent: bytes) -> None:
    key = ledger.grant()
    answer = await router.send("POST", path, sent, key)

    assert_told(answer, path, 400, "invalid_request_error")
    record = await only_record(ledger, key)
    assert (record.outcome, record.status, len(record.attempts)) == (usage_pb2.OUTCOME_REFUSED, 400, 0)


@pytest.mark.parametrize(
    ("path", "members", "named"),
    [
        ("/v1/chat/completions", {"messages": "Hi"}, "messages"),
        ("/v1/chat/completions", {"model": 7}, "model"),
        ("/v1/chat/completions", {"n": 2.0}, "n "),
        ("/v1/chat/completions", {"n": "2"}, "n "),
        ("/v1/chat/completions", {"n": 0}, "n "),
        ("/v1/responses", {"input": None}, "input"),
        ("/v1/responses", {"input": 7}, "input"),
        ("/v1/responses", {"background": True}, "background"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": {}}, "input"),
        ("/v1/embeddings", {"stream": True}, "stream"),
        ("/v1/images/generations", {"prompt": ["a"]}, "prompt"),
        ("/v1/images/generations", {"n": 0}, "n "),
        ("/v1/images/generations", {"n": "two"}, "n "),
        ("/v1/messages", {"messages": []}, "messages"),
        ("/v1/messages", {"max_tokens": None}, "max_tokens"),
        ("/v1/messages", {"max_tokens": True}, "max_tokens"),
        ("/v1/messages", {"stream": "yes"}, "stream"),
    ],
)
async def test_a_member_that_is_missing_or_wrong_is_named(
    router: Router, ledger: FakeLedger, path: str, members: dict[str, Any], named: str
) -> None:
    answer = await router.send("POST", path, orjson.dumps({**GOOD[path], **members}), ledger.grant())

    assert_told(answer, path, 400, "invalid_request_error")
    assert answer.json["error"]["message"].startswith(named)


@every_path
async def test_an_unknown_key_and_an_unknown_model_are_told_apart(
    router: Router, ledger: FakeLedger, path: str
) -> None:
    body = orjson.dumps({**GOOD[path], "model": "nothing"})

    assert_told(await router.send("POST", path, body, "tg_unknown"), path, 401, "authentication_error")
    assert_told(await router.send("POST", path, body, ledger.grant()), path, 404, "not_found_error")


@every_path
async def test_a_model_that_is_there_for_something_else_is_a_bad_request(
    router: Router, ledger: FakeLedger, path: str
) -> None:
    model = "gpt-4o" if path in ("/v1/messages", "/v1/embeddings") else "text-embedding-3-small"
    if path == "/v1/embeddings":
        model = "claude-sonnet"
    answer = await router.send("POST", path, orjson.dumps({**GOOD[path], "model": model}), ledger.grant())

    assert_told(answer, path, 400, "invalid_request_error")
    assert f"not offered on {path}" in answer.json["error"]["message"]


@every_path
async def test_a_body_of_100_mib_is_refused(router: Router, ledger: FakeLedger, path: str) -> None:
    answer = await router.send("POST", path, b" " * (100 * 1024 * 1024), ledger.grant())

    assert_told(answer, path, 413, "invalid_request_error")


@every_answerer
@pytest.mark.parametrize("trouble", ["body=html", "body=half", "break_after=0", "status=500", "status=401"])
async def test_a_provider_that_answers_nonsense_is_a_502(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any], trouble: str
) -> None:
    key = ledger.grant()
    answer = await router.send("POST", path, prompting(body, f"Hi simulate:{trouble}"), key)

    assert_told(answer, path, 502, "provider_error")
    record = await only_record(ledger, key)
    assert (record.outcome, record.status) == (usage_pb2.OUTCOME_PROVIDER_ERROR, 502)
    assert not record.HasField("usage")


@every_answerer
async def test_a_provider_s_refusal_comes_back_in_its_words(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any]
) -> None:
    key = ledger.grant()
    answer = await router.send("POST", path, prompting(body, "Hi simulate:status=400"), key)

    assert (answer.status, answer.json["error"]["message"]) == (400, "failing, as asked")
    assert answer.json.get("type") == ("error" if path == "/v1/messages" else None)
    assert (await only_record(ledger, key)).outcome == usage_pb2.OUTCOME_CLIENT_ERROR


@every_answerer
async def test_usage_that_nobody_reports_is_estimated(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any]
) -> None:
    key = ledger.grant()
    answer = await router.send("POST", path, prompting(body, "Hello simulate:usage=no"), key)
    record = await only_record(ledger, key)

    assert answer.status == 200
    assert (record.outcome, record.usage_source) == (usage_pb2.OUTCOME_SUCCESS, usage_pb2.USAGE_SOURCE_ESTIMATED)
    assert record.usage.input_tokens > 3
    if path in ("/v1/embeddings", "/v1/images/generations"):
        assert record.usage.output_tokens == 0
    else:
        assert record.usage.output_tokens == 24  # `word`, `-` and a number are a token each


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(
            pytest.param(path, GOOD[path], id=path)
            for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages")
        ),
        # Gemini is not here: it counts thoughts beside the output, where they never are too many.
        pytest.param("/v1/chat/completions", TRANSLATED["anthropic"], id="by anthropic"),
    ],
)
async def test_a_usage_that_contradicts_itself_is_clamped_and_flagged(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any]
) -> None:
    key = ledger.grant()
    await router.send("POST", path, prompting(body, "Hi simulate:reasoning=600 simulate:tokens=5"), key)
    record = await only_record(ledger, key)

    assert record.usage.reasoning_tokens == record.usage.output_tokens == 5
    assert list(record.flags) == [usage_pb2.RECORD_FLAG_USAGE_CLAMPED]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/responses", GOOD["/v1/responses"], id="responses"),
        pytest.param("/v1/messages", GOOD["/v1/messages"], id="messages"),
        *(pytest.param("/v1/chat/completions", body, id=f"by {name}") for name, body in TRANSLATED.items()),
    ],
)
@pytest.mark.parametrize("trouble", ["break_after=3", "end_after=3", "error_after=3"])
async def test_a_stream_that_goes_wrong_ends_with_an_error_and_without_its_end(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any], trouble: str
) -> None:
    key = ledger.grant()
    prompt = f"Hi simulate:{trouble} simulate:chunk_ms=10"
    answer = await router.send("POST", path, prompting(body, prompt, stream=True), key)
    record = await only_record(ledger, key)

    last = answer.body.rstrip().rpartition(b"data: ")[2]
    assert "error" in orjson.loads(last) or orjson.loads(last)["type"] == "error"
    assert not any(end in answer.body for end in (b"[DONE]", b"message_stop", b"response.completed"))
    assert record.outcome == usage_pb2.OUTCOME_PROVIDER_ERROR
    assert record.usage_source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert record.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/responses", GOOD["/v1/responses"], id="responses"),
        pytest.param("/v1/messages", GOOD["/v1/messages"], id="messages"),
        *(pytest.param("/v1/chat/completions", body, id=f"by {name}") for name, body in TRANSLATED.items()),
    ],
)
async def test_a_client_that_leaves_mid_stream_pays_for_what_the_provider_reports(
    router: Router, ledger: FakeLedger, path: str, body: dict[str, Any]
) -> None:
    key = ledger.grant()
    prompt = "Hi simulate:tokens=20 simulate:chunk_ms=30"
    request = router.client.post(router.url + path).body_bytes(prompting(body, prompt, stream=True))
    request = request.header("authorization", f"Bearer {key}").streamed_read_buffer_limit(0)
    async with request.build_streamed() as response:
        await response.body_reader.read_chunk()
        await asyncio.sleep(0.1)
    record = await only_record(ledger, key)

    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE
    assert (record.usage_source, record.usage.output_tokens) == (usage_pb2.USAGE_SOURCE_REPORTED, 20)


async def test_a_prompt_that_gemini_s_filter_refuses_is_recorded_as_that(router: Router, ledger: FakeLedger) -> None:
    for streamed in (False, True):
        key = ledger.grant()
        sent = prompting(TRANSLATED["gemini"], "Hi simulate:finish=BLOCKED", stream=streamed)
        answer = await router.send("POST", "/v1/chat/completions", sent, key)
        record = await only_record(ledger, key)

        assert answer.status == 200
        assert b'"finish_reason":"content_filter"' in answer.body
        assert record.outcome == usage_pb2.OUTCOME_CONTENT_REJECTED
