"""What a chat completion answers with, whatever format it came in."""

from collections.abc import Mapping
from typing import Any

import orjson


def completion(
    answer_id: str, model: str, created_seconds: int, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A whole chat completion."""
    body = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created_seconds,
        "model": model,
        "choices": choices,
    }
    return body if usage is None else {**body, "usage": usage}


def choice(index: int, message: Mapping[str, Any], finish_reason: str) -> dict[str, Any]:
    """One answer among several."""
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}


def delta(index: int, said: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """What one event adds to one answer."""
    return {"index": index, "delta": said, "logprobs": None, "finish_reason": finish_reason}


def assistant_message(text: str, reasoning: str, tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of an answer. Its content is null where a tool is called instead of saying something."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not tool_calls else None,
        "refusal": None,
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def tool_call(call_id: str, name: str, arguments: object) -> dict[str, Any]:
    """A call of a tool, its arguments as a text of JSON."""
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def error(message: object, kind: object, code: object = None) -> dict[str, Any]:
    """The body of a failure."""
    return {"error": {"message": str(message), "type": str(kind), "param": None, "code": code}}
