"""OpenAI image generations: `POST /v1/images/generations`."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Answer, Endpoint, EndpointNumber, ModelRequest
from services.router.formats.estimation import Tokenizer
from services.router.formats.event_stream import Part, StreamReader, parse_event
from services.router.formats.members import optional_member
from services.router.formats.usage import UsageReading, usage_from_images
from tollgate.ledger.v1.usage_pb2 import OutputImages, Usage

IMAGES_MAX = 100


class ImageGenerations(Endpoint):
    """A prompt in, images out. They are counted, whatever tokens are reported."""

    name = "image_generations"
    path = "/v1/images/generations"
    number = EndpointNumber.IMAGE_GENERATIONS
    upstream_path = "/images/generations"
    knows_kept_state = False

    def check(self, members: Mapping[str, Any]) -> None:
        if not isinstance(members.get("prompt"), str) or not members["prompt"]:
            raise InvalidRequestError("prompt", "must be a text")
        if not 1 <= optional_member(members, "n", int, 1) <= IMAGES_MAX:
            raise InvalidRequestError("n", f"must be from 1 to {IMAGES_MAX}")
        for name in ("size", "quality"):
            optional_member(members, name, str, "")

    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        return tokenizer.count(str(members.get("prompt", "")))

    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        data = message.get("data")
        if not isinstance(data, list):
            return None
        counted = _counted(request, message, len(data))
        return Answer(body=body, usage=_usage(message, counted), counted=counted)

    def stream_reader(self, request: ModelRequest) -> StreamReader:
        return ImageStreamReader(request)

    def error_event(self, code: str, message: str) -> bytes:
        error = {"message": message, "type": "provider_error", "code": code}
        return b"event: error\ndata: " + orjson.dumps({"type": "error", "error": error}) + b"\n\n"


class ImageStreamReader(StreamReader):
    """Images as they become clearer; each that is complete carries its usage."""

    noteworthy = re.compile(rb'"type"\s*:\s*"(?:image_generation\.completed|error)"|"error"\s*:\s*[{"]')
    # Nothing but images, of megabytes each.
    keeps_text = False

    def __init__(self, request: ModelRequest) -> None:
        super().__init__()
        self._request = request
        self._missing = optional_member(request.members, "n", int, 1)

    def look(self, event: bytes) -> Part:
        message = parse_event(event)
        if message.get("type") != "image_generation.completed":
            self.failed |= bool(message.get("error")) or message.get("type") == "error"
            return Part.ANSWER
        counted = _counted(self._request, message, 1)
        self.counted.MergeFrom(counted)
        self.usage = _sum(self.usage, _usage(message, counted))
        self._missing -= 1
        return Part.ANSWER if self._missing > 0 else Part.END

    def text(self, message: Mapping[str, Any]) -> str:
        return ""


def _usage(message: Mapping[str, Any], counted: Usage) -> UsageReading | None:
    report = message.get("usage")
    reading = usage_from_images(report) if isinstance(report, dict) else None
    if reading is not None:
        reading.usage.MergeFrom(counted)
    return reading


def _counted(request: ModelRequest, message: Mapping[str, Any], count: int) -> Usage:
    if count == 0:
        return Usage()
    size, quality = (_told(request, message, name) for name in ("size", "quality"))
    return Usage(output_images=[OutputImages(size=size, quality=quality, count=count)])


def _told(request: ModelRequest, message: Mapping[str, Any], name: str) -> str:
    """As the provider says it was, else as it was asked for; `auto` says nothing."""
    for value in (message.get(name), request.members.get(name)):
        if isinstance(value, str) and value != "auto":
            return value[:64]
    return ""


def _sum(one: UsageReading | None, other: UsageReading | None) -> UsageReading | None:
    """The usage of several images, each reported with its own."""
    if one is None or other is None:
        return one or other
    total = Usage(
        input_tokens=one.usage.input_tokens + other.usage.input_tokens,
        output_tokens=one.usage.output_tokens + other.usage.output_tokens,
        input_image_tokens=one.usage.input_image_tokens + other.usage.input_image_tokens,
        output_image_tokens=one.usage.output_image_tokens + other.usage.output_image_tokens,
        output_images=[*one.usage.output_images, *other.usage.output_images],
    )
    return UsageReading(total, one.clamped or other.clamped)
