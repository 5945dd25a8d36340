"""What a provider keeps for the holder of a key is named by its holder only: never with the platform's key."""

import json
from typing import Any

import orjson
import pytest

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Endpoint
from services.router.formats.exchange import Target
from services.router.formats.members import LOOKED_THROUGH_BYTES_MAX
from services.router.formats.native import NativeExchange
from services.router.formats.registry import CHAT_COMPLETIONS, MESSAGES, RESPONSES

HI = [{"role": "user", "content": "Hi"}]
MINIMUM: dict[Endpoint, dict[str, Any]] = {
    CHAT_COMPLETIONS: {"messages": HI},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"messages": HI, "max_tokens": 9},
}
OWN, PLATFORM = Target(upstream_model="m", own_key=True), Target(upstream_model="m")


def kept_member(endpoint: Endpoint, members: dict[str, Any]) -> str:
    return endpoint.read(orjson.dumps({"model": "m", **MINIMUM[endpoint], **members}), {}).kept_member


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def sent(endpoint: Endpoint, body: bytes, target: Target) -> bytes:
    return NativeExchange(endpoint).call(endpoint.read(body, {}), target).body


@pytest.mark.parametrize(
    ("named", "members"),
    [
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("Previous_Response_ID", {"Previous_Response_ID": "resp_1"}),
        ("conversation", {"conversation": "conv_1"}),
        ("conversation", {"conversation": {"id": "conv_1"}}),
        ("prompt", {"prompt": {"id": "pmpt_1", "variables": {"name": "Ada"}}}),
        ("store", {"store": True}),
        ("file_id", {"input": user({"type": "input_file", "file_id": "file-1"})}),
        ("file_id", {"input": user({"type": "input_image", "file_id": "file-1"})}),
        ("file_id", {"input": [{"type": "function_call_output", "output": [{"file_id": "file-1"}]}]}),
        ("file_id", {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]}),
        ("file_ids", {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]}),
        ("container", {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}),
        ("container_id", {"input": [{"type": "code_interpreter_call", "container_id": "cntr_1"}]}),
        ("container_id", {"tools": [{"type": "shell", "environment": {"container_id": "cntr_1"}}]}),
        ("skill_id", {"tools": [{"type": "shell", "environment": {"skills": [{"skill_id": "skill_1"}]}}]}),
        ("vector_store_ids", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}),
        ("tunnel_id", {"tools": [{"type": "mcp", "tunnel_id": "tunnel_1"}]}),
        ("comparison_response_id", {"prompt_cache_options": {"comparison_response_id": "resp_1"}}),
        ("input[1]", {"input": [*HI, {"type": "item_reference", "id": "msg_1"}]}),
        ("input[0]", {"input": [{"id": "msg_1"}]}),
        ("input[0]", {"input": [{"type": None, "id": "msg_1"}]}),
        ("input[0]", {"input": [{"type": "image_generation_call", "id": "ig_1"}]}),
        ("input[0]", {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}),
    ],
)
def test_a_response_names_what_it_asks_the_provider_to_look_up_or_to_keep(named: str, members: dict[str, Any]) -> None:
    assert kept_member(RESPONSES, members) == named


@pytest.mark.parametrize(
    ("named", "members"),
    [
        ("store", {"store": True}),
        ("file_id", {"messages": user({"type": "file", "file": {"file_id": "file-1"}})}),
        ("audio", {"messages": [*HI, {"role": "assistant", "audio": {"id": "audio_1"}}]}),
        ("voice", {"audio": {"format": "mp3", "voice": {"id": "voice_1"}}}),
        ("data_sources", {"data_sources": [{"type": "azure_search", "parameters": {"index_name": "all"}}]}),
        ("cached_content", {"extra_body": {"google": {"cached_content": "cachedContents/1"}}}),
        ("cachedContent", {"cachedContent": "cachedContents/1"}),
        ("file_id", {"messages": [{"role": "assistant", "thinking_blocks": [{"source": {"file_id": "file_1"}}]}]}),
        ("url", {"messages": user({"type": "image_url", "image_url": {"url": "gs://bucket/cat.png"}})}),
        (
            "url",
            {
                "messages": user(
                    {
                        "type": "image_url",
                        "image_url": {"url": "https://GenerativeLanguage.googleapis.com:443/v1beta/files/x"},
                    }
                )
            },
        ),
        ("image_url", {"messages": user({"type": "image_url", "image_url": "file:///etc/passwd"})}),
    ],
)
def test_a_chat_completion_does_too(named: str, members: dict[str, Any]) -> None:
    assert kept_member(CHAT_COMPLETIONS, members) == named


@pytest.mark.parametrize(
    ("named", "members"),
    [
        ("container", {"container": "container_1"}),
        ("container", {"container": {"id": "container_1"}}),
        ("skill_id", {"container": {"skills": [{"type": "custom", "skill_id": "skill_1"}]}}),
        ("file_id", {"messages": user({"type": "document", "source": {"type": "file", "file_id": "file_1"}})}),
        ("file_id", {"messages": user({"type": "container_upload", "file_id": "file_1"})}),
        ("file_id", {"messages": user({"type": "tool_result", "content": [{"source": {"file_id": "file_1"}}]})}),
        ("thread", {"thread": {"type": "create"}}),
        ("previous_message_id", {"diagnostics": {"previous_message_id": "msg_1"}}),
    ],
)
def test_an_anthropic_message_does_too(named: str, members: dict[str, Any]) -> None:
    assert kept_member(MESSAGES, members) == named


OPAQUE = {"file_id": "F-7", "container": "box", "store": True}


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        (RESPONSES, {"previous_response_id": None, "conversation": None, "store": False, "prompt": None}),
        (RESPONSES, {"input": user({"type": "input_file", "file_url": "https://example.com/a.pdf", "file_id": None})}),
        (RESPONSES, {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": {"default": OPAQUE}}]}),
        (RESPONSES, {"tools": [{"type": "mcp", "headers": OPAQUE, "server_url": "https://example.com"}]}),
        (RESPONSES, {"input": [{"role": "user", "content": "file_id previous_response_id"}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "…", "summary": []}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_1", "content": [{"text": "hm"}]}]}),
        (RESPONSES, {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "aGk="}]}),
        (RESPONSES, {"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": []}]}),
        (CHAT_COMPLETIONS, {"audio": {"format": "mp3", "voice": "alloy"}, "metadata": {"file_id": "mine"}}),
        (
            CHAT_COMPLETIONS,
            {"messages": user({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}})},
        ),
        (CHAT_COMPLETIONS, {"response_format": {"json_schema": {"schema": {"examples": [OPAQUE]}}}}),
        (MESSAGES, {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": OPAQUE}]}]}),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {"examples": [OPAQUE]}}]}),
    ],
)
def test_what_only_looks_like_it_is_left_alone(endpoint: Endpoint, members: dict[str, Any]) -> None:
    assert kept_member(endpoint, members) == ""


def test_a_deep_request_is_looked_at_and_one_that_nobody_could_write_is_refused() -> None:
    def nested(depth: int) -> bytes:
        return b'{"model": "m", "messages": [' + b"[" * depth + b'{"file_id": "f"}' + b"]" * depth + b"]}"

    assert CHAT_COMPLETIONS.read(nested(250), {}).kept_member == "file_id"
    for depth in (260, 1_000, 100_000):
        with pytest.raises(InvalidRequestError, match=r"^the body "):
            CHAT_COMPLETIONS.read(nested(depth), {})


def test_with_the_platforms_key_a_response_is_not_kept() -> None:
    body = b'{ "model": "m", "input": "Hi" }'

    assert orjson.loads(sent(RESPONSES, body, PLATFORM)) == {"model": "m", "input": "Hi", "store": False}
    assert sent(RESPONSES, body, OWN) is body


@pytest.mark.parametrize(
    "member",
    [
        b'"store": true, "store": null',
        b'"Store": true, "Store": null',
        b'"st\\u006fre": true, "store": null',
        b'"max_tokens": 100000, "max_tokens": 1',
        b'"messages": [{"content": [{"FILE_ID": "f"}]}]',
        b'"messages": [{"content": [{"image_url": "file:///etc/passwd"}]}]',
        b'"metadata": {"deep": [{"name": 1, "name": 2}]}',
    ],
)
def test_with_the_platforms_key_nothing_is_sent_that_others_could_read_otherwise(member: bytes) -> None:
    """Of members of one name we see the last; a provider may see the first."""
    body = b'{"model": "m", ' + member + b', "messages": [{"role": "user", "content": "Hi"}]}'
    request = CHAT_COMPLETIONS.read(body, {})

    assert request.kept_member == ""
    assert sent(CHAT_COMPLETIONS, body, PLATFORM) == orjson.dumps(dict(request.members))
    assert sent(CHAT_COMPLETIONS, body, OWN) is body


@pytest.mark.parametrize("said", ["the file_id of the container", '{"store": 1, "store": 2}', "\u20ac"])
@pytest.mark.parametrize("spelling", [{"indent": 2}, {"ensure_ascii": True}, {"separators": (",", ":")}], ids=str)
def test_whatever_a_text_speaks_of_it_goes_on_byte_for_byte(said: str, spelling: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": said}]}, **spelling).encode()

    assert sent(CHAT_COMPLETIONS, body, PLATFORM) is body


def test_a_body_that_is_too_long_to_be_looked_through_is_written_anew() -> None:
    body = b'{"model": "m", "messages": [{"content": "' + b"x" * LOOKED_THROUGH_BYTES_MAX + b'"}]}'

    assert sent(CHAT_COMPLETIONS, body, PLATFORM) == body.replace(b": ", b":").replace(b", ", b",")
    assert sent(CHAT_COMPLETIONS, body.replace(b" ", b""), PLATFORM) == body.replace(b" ", b"")
