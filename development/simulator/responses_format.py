"""OpenAI responses: whole bodies, and the events of a stream."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import ARGUMENTS, BadRequestError, Behaviour, behaviour_for
from development.simulator.openai_format import error

_CREATED = 1_700_000_000
_MESSAGE_ID = "msg_simulated"


def asked(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Raises BadRequestError."""
    value = request.get("input")
    if not value:
        raise BadRequestError("input is needed")
    instructions = [request["instructions"]] if request.get("instructions") else []
    return behaviour_for(request, instance, [*instructions, *([value] if isinstance(value, str) else value)])


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    return orjson.dumps(_response(behaviour, "completed"))


def opening(behaviour: Behaviour) -> bytes:
    """The events before the first token."""
    response = {**_response(behaviour, "in_progress"), "output": []}
    response.pop("usage", None)
    item = _item(behaviour, "in_progress")
    item["arguments" if behaviour.tool else "content"] = "" if behaviour.tool else []
    events: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": response} for name in ("created", "in_progress")
    ]
    events.append({"type": "response.output_item.added", "output_index": 0, "item": item})
    if not behaviour.tool:
        events.append({"type": "response.content_part.added", **_at(), "part": _part("")})
    return _events(events)


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per token."""
    for word in behaviour.words():
        yield _events([{"type": "response.output_text.delta", **_at(), "delta": word, "logprobs": []}])
    if behaviour.tool:
        at = {"item_id": "fc_simulated", "output_index": 0}
        for piece in (_arguments()[:5], _arguments()[5:]):
            yield _events([{"type": "response.function_call_arguments.delta", **at, "delta": piece}])


def closing(behaviour: Behaviour) -> bytes:
    """The events after the last token."""
    text, item = "".join(behaviour.words()), _item(behaviour, "completed")
    if behaviour.tool:
        at = {"item_id": "fc_simulated", "output_index": 0, "name": behaviour.tool}
        ends: list[dict[str, Any]] = [
            {"type": "response.function_call_arguments.done", **at, "arguments": _arguments()}
        ]
    else:
        ends = [
            {"type": "response.output_text.done", **_at(), "text": text, "logprobs": []},
            {"type": "response.content_part.done", **_at(), "part": _part(text)},
        ]
    ends.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    kind = "incomplete" if behaviour.directives.get("finish") == "incomplete" else "completed"
    return _events([*ends, {"type": f"response.{kind}", "response": _response(behaviour, kind)}])


def error_event(status: int, code: str, message: str) -> bytes:
    """A failure in mid-stream."""
    return _events([{"type": "error", "code": code, "message": message, "param": None}])


def _response(behaviour: Behaviour, status: str) -> dict[str, Any]:
    searches = [
        {"type": "web_search_call", "id": f"ws_{number}", "status": "completed", "action": {"type": "search"}}
        for number in range(behaviour.number("searches"))
    ]
    response: dict[str, Any] = {
        "id": "resp_simulated",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "model": behaviour.model,
        "output": [*searches, _item(behaviour, "completed")],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "store": behaviour.request.get("store") is not False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    if "service_tier" in behaviour.directives:
        response["service_tier"] = behaviour.directives["service_tier"]
    if behaviour.reports_usage:
        response["usage"] = _usage(behaviour)
    return response


def _usage(behaviour: Behaviour) -> dict[str, Any]:
    return {
        "input_tokens": behaviour.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": behaviour.number("cached"),
            "cache_write_tokens": behaviour.number("cache_write"),
        },
        "output_tokens": behaviour.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": behaviour.number("reasoning")},
        "total_tokens": behaviour.prompt_tokens + behaviour.completion_tokens,
    }


def _item(behaviour: Behaviour, status: str) -> dict[str, Any]:
    if behaviour.tool:
        call = {"call_id": "call_simulated", "name": behaviour.tool, "arguments": _arguments()}
        return {"id": "fc_simulated", "type": "function_call", "status": status, **call}
    content = [_part("".join(behaviour.words()))]
    return {"id": _MESSAGE_ID, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _arguments() -> str:
    return orjson.dumps(ARGUMENTS).decode()


def _at() -> dict[str, Any]:
    return {"item_id": _MESSAGE_ID, "output_index": 0, "content_index": 0}


def _events(bodies: list[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps({**body, "sequence_number": 0}) + b"\n\n"
        for body in bodies
    )


__all__ = ["asked", "closing", "error", "error_event", "opening", "tokens", "whole"]
