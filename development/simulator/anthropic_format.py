"""Anthropic messages: whole bodies, and the events of a stream."""

from collections.abc import Iterator
from typing import Any

import orjson

from development.simulator.behaviour import Behaviour

_ID = "msg_simulated"


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    content = [{"type": "text", "text": "".join(behaviour.words())}]
    body = _message(behaviour, content, "end_turn", behaviour.completion_tokens)
    return orjson.dumps(body)


def opening(behaviour: Behaviour) -> bytes:
    """The events before the first token."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    message = {"type": "message_start", "message": _message(behaviour, [], None, 1)}
    return _event(message) + _event(block) + _event({"type": "ping"})


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per token."""
    for word in behaviour.words():
        yield _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})


def closing(behaviour: Behaviour) -> bytes:
    """The events after the last token."""
    delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    if behaviour.reports_usage:
        delta["usage"] = {"output_tokens": behaviour.completion_tokens}
    return _event({"type": "content_block_stop", "index": 0}) + _event(delta) + _event({"type": "message_stop"})


def error(status: int, code: str, message: str) -> bytes:
    """The body of a failure. The format has types where OpenAI's has codes."""
    kind = code or ("invalid_request_error" if status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def _message(
    behaviour: Behaviour, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int
) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": _ID,
        "type": "message",
        "role": "assistant",
        "model": behaviour.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }
    if behaviour.reports_usage:
        cached, written = behaviour.number("cached"), behaviour.number("cache_write")
        message["usage"] = {
            # This format counts the cache apart from the input.
            "input_tokens": max(0, behaviour.prompt_tokens - cached - written),
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": written,
            "output_tokens": output_tokens,
        }
    return message


def _event(body: dict[str, Any]) -> bytes:
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"
