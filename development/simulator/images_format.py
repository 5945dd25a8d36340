"""OpenAI image generations: one small image, over and over. Models named `gpt-image…` report tokens, others do not."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import BadRequestError, Behaviour, behaviour_for
from development.simulator.openai_format import error

_CREATED = 1_700_000_000
_TOKENS_PER_IMAGE = 1056
# The smallest PNG there is: one transparent pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def asked(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Raises BadRequestError."""
    if not request.get("prompt"):
        raise BadRequestError("prompt is needed")
    return behaviour_for(request, instance, [request["prompt"]])


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    count = _count(behaviour)
    body: dict[str, Any] = {"created": _CREATED, "data": [{"b64_json": _image()}] * count}
    if _has_tokens(behaviour):
        body |= {"background": "opaque", "output_format": "png", **_told(behaviour)}
        if behaviour.reports_usage:
            body["usage"] = _usage(behaviour, count)
    return orjson.dumps(body)


def opening(behaviour: Behaviour) -> bytes:
    """Nothing is there before the first image."""
    del behaviour
    return b""


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """One event per image that is not clear yet."""
    for index in range(behaviour.request.get("partial_images") or 0):
        yield _event("image_generation.partial_image", behaviour, partial_image_index=index)


def closing(behaviour: Behaviour) -> bytes:
    """The images, complete."""
    usage = {"usage": _usage(behaviour, 1)} if behaviour.reports_usage else {}
    return b"".join(_event("image_generation.completed", behaviour, **usage) for _ in range(_count(behaviour)))


def error_event(status: int, code: str, message: str) -> bytes:
    """A failure in mid-stream."""
    return b"event: error\ndata: " + error(status, code, message) + b"\n\n"


def _count(behaviour: Behaviour) -> int:
    return int(behaviour.request.get("n") or 1)


def _has_tokens(behaviour: Behaviour) -> bool:
    return behaviour.model.startswith("gpt-image")


def _told(behaviour: Behaviour) -> dict[str, str]:
    """What `auto` comes to."""
    asked_for = {"size": behaviour.request.get("size"), "quality": behaviour.request.get("quality")}
    settled = {"size": "1024x1024", "quality": "medium"}
    return {name: settled[name] if value in (None, "auto") else str(value) for name, value in asked_for.items()}


def _usage(behaviour: Behaviour, count: int) -> dict[str, Any]:
    output = _TOKENS_PER_IMAGE * count
    return {
        "input_tokens": behaviour.prompt_tokens,
        "input_tokens_details": {"text_tokens": behaviour.prompt_tokens, "image_tokens": 0},
        "output_tokens": output,
        "total_tokens": behaviour.prompt_tokens + output,
    }


def _image() -> str:
    return base64.b64encode(PIXEL).decode()


def _event(kind: str, behaviour: Behaviour, **more: Any) -> bytes:
    shared = {"created_at": _CREATED, "background": "opaque", "output_format": "png", **_told(behaviour)}
    body = {"type": kind, "b64_json": _image(), **shared, **more}
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"


__all__ = ["asked", "closing", "error", "error_event", "opening", "tokens", "whole"]
