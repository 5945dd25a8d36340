"""OpenAI embeddings: vectors made of the texts' own bytes."""

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from development.simulator.behaviour import BadRequestError, Behaviour, behaviour_for
from development.simulator.openai_format import error

_DIMENSIONS = 8


def asked(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Raises BadRequestError."""
    return behaviour_for(request, instance, _texts(request), streamed=False)


def whole(behaviour: Behaviour) -> bytes:
    """The body of an answer."""
    dimensions = behaviour.request.get("dimensions") or _DIMENSIONS
    is_packed = behaviour.request.get("encoding_format") == "base64"
    vectors = [_vector(text, dimensions) for text in _texts(behaviour.request)]
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": behaviour.model}
    if behaviour.reports_usage:
        body["usage"] = {"prompt_tokens": behaviour.prompt_tokens, "total_tokens": behaviour.prompt_tokens}
    return orjson.dumps(body)


def _texts(request: Mapping[str, Any]) -> list[str]:
    value = request.get("input")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise BadRequestError("input is needed")
    # Lists of tokens are as good as texts of as many words.
    lists = [value] if isinstance(value[0], int) else value
    return [each if isinstance(each, str) else " ".join(map(str, each)) for each in lists]


def _vector(text: str, dimensions: int) -> list[float]:
    data = text.encode() or b"\0"
    return [data[index % len(data)] / 256 for index in range(dimensions)]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def error_event(status: int, code: str, message: str) -> bytes:
    """Never sent: this format has no streams."""
    return error(status, code, message)


def opening(behaviour: Behaviour) -> bytes:
    """Never sent."""
    return b""


def tokens(behaviour: Behaviour) -> Iterator[bytes]:
    """Never sent."""
    return iter(())


def closing(behaviour: Behaviour) -> bytes:
    """Never sent."""
    return b""


__all__ = ["asked", "closing", "error", "error_event", "opening", "tokens", "whole"]
