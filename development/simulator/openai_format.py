"""OpenAI chat completions: whole bodies, and the events of a stream."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import ARGUMENTS, Behaviour, behaviour_for

_CREATED = 1_700_000_000
_ID = "chatcmpl-simulated"
END = b"data: [DONE]\n\n"


def asked(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Raises BadRequestError."""
    return behaviour_for(request, instance)


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(behaviour.words()) or None, "refusal": None}
    if behaviour.tool:
        message["tool_calls"] = [_tool_call(behaviour.tool)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(behaviour)}
    body = {**_head(behaviour, "chat.completion"), "choices": [choice]}
    if behaviour.reports_usage:
        body["usage"] = usage(behaviour)
    return orjson.dumps(body)


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per token; a tool's arguments are two."""
    for word in behaviour.words():
        yield _event(behaviour, [{"index": 0, "delta": {"content": word}, "finish_reason": None}])
    if behaviour.tool:
        call = _tool_call(behaviour.tool)
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        pieces = [{"index": 0, **call}]
        pieces += [{"index": 0, "function": {"arguments": each}} for each in (arguments[:5], arguments[5:])]
        for piece in pieces:
            yield _event(behaviour, [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}])


def opening(behaviour: Behaviour) -> bytes:
    """The first event, which names the role."""
    return _event(behaviour, [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])


def closing(behaviour: Behaviour) -> bytes:
    """The reason for finishing, the usage where it is wanted, the end marker."""
    events = [_event(behaviour, [{"index": 0, "delta": {}, "finish_reason": _finish_reason(behaviour)}])]
    if behaviour.usage_wanted and behaviour.reports_usage:
        body = {**_head(behaviour, "chat.completion.chunk"), "choices": [], "usage": usage(behaviour)}
        events.append(b"data: " + orjson.dumps(body) + b"\n\n")
    return b"".join([*events, END])


def usage(behaviour: Behaviour) -> dict[str, Any]:
    """What is reported as used."""
    report: dict[str, Any] = {
        "prompt_tokens": behaviour.prompt_tokens,
        "completion_tokens": behaviour.completion_tokens,
        "total_tokens": behaviour.prompt_tokens + behaviour.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": behaviour.number("cached"),
            "audio_tokens": behaviour.number("input_audio"),
        },
        "completion_tokens_details": {
            "reasoning_tokens": behaviour.number("reasoning"),
            "audio_tokens": behaviour.number("output_audio"),
        },
    }
    return report


def error(status: int, code: str, message: str) -> bytes:
    """The body of a failure."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_event(status: int, code: str, message: str) -> bytes:
    """A failure in mid-stream."""
    return b"data: " + error(status, code, message) + b"\n\n"


def _tool_call(name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": orjson.dumps(ARGUMENTS).decode()}
    return {"id": "call_simulated", "type": "function", "function": function}


def _finish_reason(behaviour: Behaviour) -> str:
    return behaviour.directives.get("finish", "tool_calls" if behaviour.tool else "stop")


def _head(behaviour: Behaviour, kind: str) -> dict[str, Any]:
    head = {"id": _ID, "object": kind, "created": _CREATED, "model": behaviour.model}
    if "service_tier" in behaviour.directives:
        head["service_tier"] = behaviour.directives["service_tier"]
    return head


def _event(behaviour: Behaviour, choices: list[dict[str, Any]]) -> bytes:
    body = {**_head(behaviour, "chat.completion.chunk"), "choices": choices}
    if behaviour.usage_wanted:
        # As OpenAI does: every other chunk then says that the usage is not there yet.
        body["usage"] = None
    return b"data: " + orjson.dumps(body) + b"\n\n"
