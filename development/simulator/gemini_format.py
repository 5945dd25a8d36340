"""Google Gemini: whole bodies, and the events of a stream. As strict about requests as the real one."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import ARGUMENTS, BadRequestError, Behaviour, behaviour_for, reject_unknown

_KNOWN = frozenset(
    {"contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig", "cachedContent"}
)
_ROLES = ("user", "model", None)
_CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


def asked(request: Mapping[str, Any], instance: str, model: str, *, streamed: bool) -> Behaviour:
    """Raises BadRequestError."""
    reject_unknown(request, _KNOWN)
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise BadRequestError("contents is not specified")
    if any(content.get("role") not in _ROLES or not content.get("parts") for content in contents):
        raise BadRequestError("contents: a role is user or model, and there is at least one part")
    system = [request["systemInstruction"]] if "systemInstruction" in request else []
    return behaviour_for(request, instance, [*system, *contents], model=model, streamed=streamed)


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    parts: list[dict[str, Any]] = []
    if thoughts := "".join(behaviour.thoughts()):
        parts.append({"text": thoughts, "thought": True})
    if text := "".join(behaviour.words()):
        parts.append({"text": text})
    parts += _tool_parts(behaviour)
    return orjson.dumps(_response(behaviour, parts, is_last=True))


def opening(behaviour: Behaviour) -> bytes:
    """This format begins with the first token."""
    return b""


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per token."""
    for thought in behaviour.thoughts():
        yield _event(_response(behaviour, [{"text": thought, "thought": True}]))
    for word in behaviour.words():
        yield _event(_response(behaviour, [{"text": word}]))
    if behaviour.tool:
        yield _event(_response(behaviour, _tool_parts(behaviour)))


def closing(behaviour: Behaviour) -> bytes:
    """The last event, with the reason for finishing. There is no end marker."""
    return _event(_response(behaviour, [{"text": ""}], is_last=True))


def error(status: int, code: str, message: str) -> bytes:
    """The body of a failure."""
    name = _CODES.get(status, code.upper())
    return orjson.dumps({"error": {"code": status, "message": message, "status": name}})


def error_event(status: int, code: str, message: str) -> bytes:
    """A failure in mid-stream."""
    return b"data: " + error(status, code, message) + b"\r\n\r\n"


def _tool_parts(behaviour: Behaviour) -> list[dict[str, Any]]:
    if not behaviour.tool:
        return []
    call = {"name": behaviour.tool, "args": ARGUMENTS}
    return [{"functionCall": call, "thoughtSignature": "c2lnbmVk"}]


def _response(behaviour: Behaviour, parts: list[dict[str, Any]], *, is_last: bool = False) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    response: dict[str, Any] = {
        "candidates": [candidate],
        "modelVersion": behaviour.model,
        "responseId": "simulated",
    }
    if behaviour.directives.get("finish") == "BLOCKED":
        response = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": behaviour.model}
    elif is_last:
        candidate["finishReason"] = behaviour.directives.get("finish", "STOP")
        if searches := behaviour.number("searches"):
            candidate["groundingMetadata"] = {"webSearchQueries": [f"query {number}" for number in range(searches)]}
    if behaviour.reports_usage:
        response["usageMetadata"] = _usage(behaviour, is_last=is_last)
    return response


def _usage(behaviour: Behaviour, *, is_last: bool) -> dict[str, Any]:
    """Grows with the stream; thoughts are counted apart."""
    output, thoughts = behaviour.completion_tokens if is_last else 1, behaviour.number("reasoning")
    usage: dict[str, Any] = {
        "promptTokenCount": behaviour.prompt_tokens,
        "candidatesTokenCount": output,
        "totalTokenCount": behaviour.prompt_tokens + output + thoughts,
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if cached := behaviour.number("cached"):
        usage["cachedContentTokenCount"] = cached
    if audio := behaviour.number("input_audio"):
        usage["promptTokensDetails"] = [{"modality": "AUDIO", "tokenCount": audio}]
    return usage


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\r\n\r\n"
