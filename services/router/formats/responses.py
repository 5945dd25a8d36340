"""OpenAI responses: `POST /v1/responses`."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import orjson

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Answer, Endpoint, EndpointNumber, ModelRequest
from services.router.formats.estimation import Tokenizer
from services.router.formats.event_stream import Part, StreamReader, parse_event
from services.router.formats.members import objects, optional_member
from services.router.formats.usage import UsageReading, searches_charged, service_tier_served, usage_from_responses
from tollgate.ledger.v1.usage_pb2 import OutputImages, Usage

_TOKENS_PER_ITEM = 3
_ENDS = frozenset({"response.completed", "response.incomplete"})
_FAILURES = frozenset({"response.failed", "error"})


class Responses(Endpoint):
    """Items in, items out."""

    name = "responses"
    path = "/v1/responses"
    number = EndpointNumber.RESPONSES
    upstream_path = "/responses"
    # OpenAI keeps responses for 30 days unless told otherwise.
    not_kept: ClassVar[Mapping[str, Any]] = MappingProxyType({"store": False})
    # Searches by the older tool have two prices, by whether the model reasons.
    priced_tools = re.compile(
        "function|custom|namespace|tool_search|mcp|apply_patch|local_shell|computer|computer_use_preview"
        "|web_search|web_search_2025_08_26"
    )

    def check(self, members: Mapping[str, Any]) -> None:
        value = members.get("input")
        # A stored prompt may bring its own input.
        is_stored = value is None and isinstance(members.get("prompt"), dict)
        if not is_stored and (not isinstance(value, (str, list)) or not value):
            raise InvalidRequestError("input", "must be a text, or a list with at least one item")
        if optional_member(members, "background", bool, False):
            raise InvalidRequestError(
                "background", "must be false: a response is answered in the call that asks for it"
            )

    def kept_member(self, members: Mapping[str, Any]) -> str:
        return super().kept_member(members) or _kept_item(members.get("input"))

    def is_priced_tool(self, tool: Mapping[str, Any], tools: list[dict[str, Any]]) -> bool:
        if tool.get("type") == "shell":
            # Anywhere else it runs in a container, which is charged by its time.
            environment = tool.get("environment")
            return isinstance(environment, dict) and environment.get("type") == "local"
        return super().is_priced_tool(tool, tools)

    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        instructions = members.get("instructions")
        count = tokenizer.count(instructions) if isinstance(instructions, str) else 0
        value = members.get("input")
        if isinstance(value, str):
            return count + _TOKENS_PER_ITEM + tokenizer.count(value)
        return count + sum(_TOKENS_PER_ITEM + tokenizer.count(_text_of_item(item)) for item in objects(value))

    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        output = message.get("output")
        if not isinstance(output, list):
            return None
        counted = _counted(message)
        return Answer(
            body=body,
            usage=_usage(message, counted),
            service_tier=service_tier_served(message),
            counted=counted,
            text=lambda: "".join(map(_text_of_item, objects(output))),
        )

    def stream_reader(self, request: ModelRequest) -> StreamReader:
        return ResponseStreamReader()

    def error_event(self, code: str, message: str) -> bytes:
        # The format's own members, and `error`, by which the official SDKs know what to raise.
        event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0}
        error = {"message": message, "type": "provider_error", "code": code}
        return b"event: error\ndata: " + orjson.dumps({**event, "error": error}) + b"\n\n"


class ResponseStreamReader(StreamReader):
    """Typed events, of which the last carries the whole response with its usage."""

    noteworthy = re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|error)"|"error"\s*:\s*[{"]')

    def look(self, event: bytes) -> Part:
        message = parse_event(event)
        kind = str(message.get("type", ""))
        response = message.get("response")
        if isinstance(response, dict):
            self._take(response)
        if kind in _ENDS:
            return Part.END
        self.failed |= kind in _FAILURES or (not kind and bool(message.get("error")))
        return Part.ANSWER

    def text(self, message: Mapping[str, Any]) -> str:
        delta = message.get("delta")
        is_text = isinstance(delta, str) and str(message.get("type", "")).endswith(".delta")
        return str(delta) if is_text else ""

    def _take(self, response: Mapping[str, Any]) -> None:
        self.counted = _counted(response)
        self.usage = _usage(response, self.counted) or self.usage
        self.service_tier = service_tier_served(response)


def _kept_item(value: object) -> str:
    """Where the input has an item that the provider has to look up; empty when it has none."""
    items = value if isinstance(value, list) else []
    return next((f"input[{at}]" for at, item in enumerate(items) if isinstance(item, dict) and _is_kept(item)), "")


def _is_kept(item: Mapping[str, Any]) -> bool:
    match item.get("type"):
        case None:
            # A message may leave its type out, and so may a reference.
            return "id" in item and "role" not in item
        case "item_reference":
            return True
        case "image_generation_call":
            return not item.get("result")
        case "reasoning":
            return not item.get("encrypted_content") and not item.get("content")
    return False


def _usage(response: Mapping[str, Any], counted: Usage) -> UsageReading | None:
    report = response.get("usage")
    reading = usage_from_responses(report) if isinstance(report, dict) else None
    if reading is not None:
        reading.usage.MergeFrom(counted)
    return reading


def _counted(response: Mapping[str, Any]) -> Usage:
    """What the provider made with tools of its own: as it says, else as the output shows."""
    output = response.get("output")
    searches = sum(1 for each in objects(output) if each.get("type") == "web_search_call" and _is_search(each))
    images = [each for each in objects(output) if each.get("type") == "image_generation_call"]
    return Usage(
        web_searches=searches_charged(response, searches),
        output_images=[
            OutputImages(size=_word(each.get("size")), quality=_word(each.get("quality")), count=1) for each in images
        ],
    )


def _is_search(item: Mapping[str, Any]) -> bool:
    """Opening a page and looking for something on it are not charged as searches."""
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text_of_item(item: Mapping[str, Any]) -> str:
    return "".join(_texts(item))


def _texts(item: Mapping[str, Any]) -> Iterable[str]:
    """Whatever an item says: texts, refusals, summaries, calls of functions and their outputs."""
    for member in ("content", "summary", "output"):
        value = item.get(member)
        if isinstance(value, str):
            yield value
        for part in objects(value):
            yield from _strings(part, "text", "refusal")
    yield from _strings(item, "name", "arguments")


def _strings(members: Mapping[str, Any], *names: str) -> Iterable[str]:
    return (members[name] for name in names if isinstance(members.get(name), str))
