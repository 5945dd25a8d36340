"""Anthropic messages: whole bodies, and the events of a stream. As strict about requests as the real one."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import ARGUMENTS, BadRequestError, Behaviour, behaviour_for, reject_unknown

_ID = "msg_simulated"
_KNOWN = frozenset(
    {
        *("model", "messages", "max_tokens", "system", "metadata", "stop_sequences", "stream"),
        *("tools", "tool_choice", "thinking", "output_config", "service_tier", "container"),
        *("cache_control", "inference_geo", "speed"),
    }
)


def asked(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Raises BadRequestError."""
    # Newer models, as all of these, take no temperature and nothing like it.
    reject_unknown(request, _KNOWN)
    maximum = request.get("max_tokens")
    if not isinstance(maximum, int) or maximum < 1:
        raise BadRequestError("max_tokens: field required")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages: field required")
    if any(message.get("role") not in ("user", "assistant", "system") for message in messages):
        raise BadRequestError("messages: unexpected role")
    system = [request["system"]] if "system" in request else []
    behaviour = behaviour_for(request, instance, [*system, *messages])
    thinking = request.get("thinking") or {}
    if thinking.get("type") == "enabled" and not 1024 <= thinking.get("budget_tokens", 0) < maximum:
        raise BadRequestError("max_tokens: must be greater than thinking.budget_tokens, which is at least 1024")
    return behaviour


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    content: list[dict[str, Any]] = []
    if thoughts := "".join(behaviour.thoughts()):
        content.append({"type": "thinking", "thinking": thoughts, "signature": "signed"})
    if text := "".join(behaviour.words()):
        content.append({"type": "text", "text": text, "citations": None})
    if behaviour.tool:
        content.append({**_tool_use(behaviour.tool), "input": ARGUMENTS})
    return orjson.dumps(_message(behaviour, content, _stop_reason(behaviour), behaviour.completion_tokens))


def opening(behaviour: Behaviour) -> bytes:
    """The events before the first token."""
    return _event({"type": "message_start", "message": _message(behaviour, [], None, 1)}) + _event({"type": "ping"})


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per token of text or thought, with the beginnings and ends of blocks between them."""
    index = 0
    for kind, member, pieces in (
        ("thinking", "thinking", behaviour.thoughts()),
        ("text", "text", behaviour.words()),
    ):
        is_open = False
        for piece in pieces:
            event = _delta(index, {"type": f"{kind}_delta", member: piece})
            yield event if is_open else _start(index, {"type": kind, member: ""}) + event
            is_open = True
        if is_open:
            signed = _delta(index, {"type": "signature_delta", "signature": "signed"}) if kind == "thinking" else b""
            yield signed + _event({"type": "content_block_stop", "index": index})
            index += 1
    if behaviour.tool:
        arguments = orjson.dumps(ARGUMENTS).decode()
        yield _start(index, {**_tool_use(behaviour.tool), "input": {}})
        for piece in ("", arguments[:5], arguments[5:]):
            yield _delta(index, {"type": "input_json_delta", "partial_json": piece})
        yield _event({"type": "content_block_stop", "index": index})


def closing(behaviour: Behaviour) -> bytes:
    """The events after the last token."""
    stopped = {"stop_reason": _stop_reason(behaviour), "stop_sequence": None}
    delta: dict[str, Any] = {"type": "message_delta", "delta": stopped}
    if behaviour.reports_usage:
        delta["usage"] = _output(behaviour, behaviour.completion_tokens)
    return _event(delta) + _event({"type": "message_stop"})


def error(status: int, code: str, message: str) -> bytes:
    """The body of a failure. The format has types where OpenAI's has codes."""
    kind = code or ("invalid_request_error" if status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_simulated"})


def error_event(status: int, code: str, message: str) -> bytes:
    """A failure in mid-stream."""
    return b"event: error\ndata: " + error(status, code, message) + b"\n\n"


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
        message["usage"] = {**_input(behaviour), **_output(behaviour, output_tokens)}
    return message


def _input(behaviour: Behaviour) -> dict[str, Any]:
    cached, written = behaviour.number("cached"), behaviour.number("cache_write")
    for_an_hour = behaviour.number("cache_write_1h")
    usage: dict[str, Any] = {
        # This format counts the cache apart from the input.
        "input_tokens": max(0, behaviour.prompt_tokens - cached - written),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
    }
    if for_an_hour:
        by_time = {"ephemeral_5m_input_tokens": written - for_an_hour, "ephemeral_1h_input_tokens": for_an_hour}
        usage["cache_creation"] = by_time
    if tier := behaviour.directives.get("service_tier"):
        usage["service_tier"] = tier
    return usage


def _output(behaviour: Behaviour, output_tokens: int) -> dict[str, Any]:
    usage: dict[str, Any] = {"output_tokens": output_tokens}
    if thinking := behaviour.number("reasoning"):
        usage["output_tokens_details"] = {"thinking_tokens": thinking}
    if searches := behaviour.number("searches"):
        usage["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return usage


def _stop_reason(behaviour: Behaviour) -> str:
    return behaviour.directives.get("finish", "tool_use" if behaviour.tool else "end_turn")


def _tool_use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_simulated", "name": name}


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_start", "index": index, "content_block": block})


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _event(body: dict[str, Any]) -> bytes:
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"
