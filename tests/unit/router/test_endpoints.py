"""What goes on to a provider of the caller's own format is what the caller sent, headers that matter included."""

from typing import Any

import orjson
import pytest

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Endpoint
from services.router.formats.exchange import Target
from services.router.formats.native import NativeExchange
from services.router.formats.registry import (
    CHAT_COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    IMAGE_GENERATIONS,
    MESSAGES,
    PROVIDER_FORMATS,
    RESPONSES,
    endpoints_of,
    exchange_for,
)
from tollgate.ledger.v1 import usage_pb2

HI = [{"role": "user", "content": "Hi"}]
GOOD: list[tuple[Endpoint, dict[str, Any]]] = [
    (CHAT_COMPLETIONS, {"messages": HI, "stream_options": {"include_usage": True}}),
    (RESPONSES, {"input": "Hi"}),
    (EMBEDDINGS, {"input": [[1, 2], [3]]}),
    (IMAGE_GENERATIONS, {"prompt": "a cat", "n": 3}),
    (MESSAGES, {"messages": HI, "max_tokens": 9}),
]
every_endpoint = pytest.mark.parametrize(
    ("endpoint", "members"), [pytest.param(*each, id=each[0].name) for each in GOOD]
)


class Words:
    """A tokenizer that can be counted in one's head."""

    def count(self, text: str) -> int:
        return len(text.split())


@every_endpoint
def test_a_body_goes_on_byte_for_byte_under_the_same_name(endpoint: Endpoint, members: dict[str, Any]) -> None:
    body = orjson.dumps({"model": "m", "unknown": [1.0], **members}, option=orjson.OPT_INDENT_2)

    for streamed in (body, body.replace(b"{", b'{"stream": true,', 1))[: 2 if endpoint.has_streams else 1]:
        # Of a response the platform's key asks that it is not kept.
        for own_key in (True,) if endpoint is RESPONSES else (True, False):
            target = Target(upstream_model="m", own_key=own_key)
            call = NativeExchange(endpoint).call(endpoint.read(streamed, {}), target)
            assert call.body is streamed
            assert endpoint.path.endswith(call.path)


@every_endpoint
def test_only_the_model_and_the_project_change(endpoint: Endpoint, members: dict[str, Any]) -> None:
    request = endpoint.read(orjson.dumps({"model": "m", "project_id": "web", **members}), {})
    call = NativeExchange(endpoint).call(request, Target(upstream_model="deployment-7", own_key=True))

    assert request.project_id == "web"
    assert orjson.loads(call.body) == {"model": "deployment-7", **members}


def test_what_a_client_asks_of_anthropic_in_headers_goes_on_and_nothing_else_does() -> None:
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": HI})
    headers = {"anthropic-beta": "files", "anthropic-version": "2023-06-01", "x-api-key": "tg_secret", "cookie": "c"}
    call = NativeExchange(MESSAGES).call(MESSAGES.read(body, headers), Target(upstream_model="m"))

    assert call.headers == {"anthropic-beta": "files", "anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("endpoint", "members", "expected"),
    [
        pytest.param(CHAT_COMPLETIONS, {"messages": HI}, 1 + 3 + 3, id="a chat"),
        pytest.param(RESPONSES, {"input": "one two", "instructions": "be brief"}, 2 + 2 + 3, id="a text"),
        pytest.param(
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "one two"}]}, {"output": "three"}]},
            2 + 1 + 2 * 3,
            id="items",
        ),
        pytest.param(EMBEDDINGS, {"input": ["one two", "three"]}, 3, id="texts"),
        pytest.param(EMBEDDINGS, {"input": [[11, 12], [13]]}, 3, id="tokens"),
        pytest.param(IMAGE_GENERATIONS, {"prompt": "a blue cat"}, 3, id="a prompt"),
        pytest.param(
            MESSAGES,
            {
                "system": [{"type": "text", "text": "be brief"}],
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "content": "one two"}, 7, {"text": 3}]}
                ],
            },
            2 + 2 + 3,
            id="a message",
        ),
    ],
)
def test_the_input_can_be_counted_from_its_texts(endpoint: Endpoint, members: dict[str, Any], expected: int) -> None:
    assert endpoint.count_input(members, Words()) == expected


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_whatever_a_request_is_it_can_be_counted(endpoint: Endpoint) -> None:
    oddities: list[Any] = [None, 7, "x", [None, 7, [], {}], {"content": 7}, [{"content": [None, {"text": 3}]}]]
    for odd in oddities:
        members = dict.fromkeys(("messages", "input", "prompt", "system", "instructions"), odd)

        assert endpoint.count_input(members, Words()) >= 0


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_records_name_an_endpoint_as_the_contract_does(endpoint: Endpoint) -> None:
    assert usage_pb2.Endpoint.Value(f"ENDPOINT_{endpoint.name.upper()}") == int(endpoint.number)


def test_who_can_answer_what_is_known() -> None:
    assert endpoints_of("openai") == {"chat_completions", "responses", "embeddings", "image_generations"}
    assert endpoints_of("anthropic") == {"chat_completions", "messages"}
    assert endpoints_of("gemini") == {"chat_completions"}
    for endpoint in ENDPOINTS:
        for provider_format in PROVIDER_FORMATS:
            can_answer = endpoint.name in endpoints_of(provider_format)
            assert (exchange_for(endpoint, provider_format) is not None) == can_answer


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"error": {"message": "200, but"}}', b'{"data": 7}'])
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_what_is_no_answer_is_none(endpoint: Endpoint, body: bytes) -> None:
    members = next(members for each, members in GOOD if each is endpoint)
    request = endpoint.read(orjson.dumps({"model": "m", **members}), {})

    assert NativeExchange(endpoint).answer(request, body, 0) is None


def test_vectors_do_not_stream() -> None:
    with pytest.raises(InvalidRequestError, match="stream"):
        EMBEDDINGS.read(b'{"model": "m", "input": "Hi", "stream": true}', {})


def test_an_error_of_messages_says_that_it_is_one() -> None:
    told = orjson.loads(MESSAGES.error_body(402, "insufficient_credits", "No credit is left."))

    assert told == {
        "type": "error",
        "error": {"message": "No credit is left.", "type": "insufficient_credits", "code": "insufficient_credits"},
        "message": "No credit is left.",
    }
