"""Anthropic messages: `POST /v1/messages`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from services.common.errors import InvalidRequestError
from services.router.error_bodies import error_body
from services.router.formats.endpoint import Answer, Endpoint, EndpointNumber, ModelRequest
from services.router.formats.estimation import Tokenizer
from services.router.formats.event_stream import Part, StreamReader, parse_event
from services.router.formats.members import objects
from services.router.formats.unpriced import kind_of
from services.router.formats.usage import service_tier_served, usage_from_anthropic
from tollgate.ledger.v1.usage_pb2 import Usage

_TOKENS_PER_MESSAGE = 3
# Those that filter by code what they find: since 2026-02-09.
_FREES_CODE_EXECUTION = re.compile("web_(?:search|fetch)_(?!20250305|20250910)[0-9]{8}")


class Messages(Endpoint):
    """Messages in, a message out, in blocks of content."""

    name = "messages"
    path = "/v1/messages"
    number = EndpointNumber.MESSAGES
    native_format = "anthropic"
    upstream_path = "/messages"
    forwarded_headers = ("anthropic-version", "anthropic-beta")
    priced_tools = re.compile(
        "function|custom|mcp_toolset|(?:bash|text_editor|computer|memory|computer_toolset|browser_toolset"
        "|tool_search_tool_bm25|tool_search_tool_regex|web_search|web_fetch)_[0-9]{8}"
        "|tool_search_tool_bm25|tool_search_tool_regex"
    )

    def check(self, members: Mapping[str, Any]) -> None:
        if not isinstance(members.get("messages"), list) or not members["messages"]:
            raise InvalidRequestError("messages", "must be a list with at least one message")
        maximum = members.get("max_tokens")
        if not isinstance(maximum, int) or isinstance(maximum, bool) or maximum < 1:
            raise InvalidRequestError("max_tokens", "must be a whole number from 1")

    def is_priced_tool(self, tool: Mapping[str, Any], tools: list[dict[str, Any]]) -> bool:
        if kind_of(tool).startswith("code_execution_"):
            # Its containers are charged by their time, unless such a tool is there too.
            return any(_FREES_CODE_EXECUTION.fullmatch(kind_of(each)) for each in tools)
        return super().is_priced_tool(tool, tools)

    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        system = tokenizer.count("".join(_texts(members.get("system"))))
        messages = objects(members.get("messages"))
        counts = (_TOKENS_PER_MESSAGE + tokenizer.count("".join(_texts(each.get("content")))) for each in messages)
        return system + sum(counts)

    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        content = message.get("content")
        if not isinstance(content, list):
            return None
        report = message.get("usage")
        report = report if isinstance(report, dict) else {}
        return Answer(
            body=body,
            usage=usage_from_anthropic(report),
            service_tier=service_tier_served(report),
            text=lambda: "".join(_texts(content)),
        )

    def stream_reader(self, request: ModelRequest) -> StreamReader:
        return MessageStreamReader()

    def error_body(self, status: int, code: str, message: str) -> bytes:
        return error_body(status, code, message, beside={"type": "error"})

    def error_event(self, code: str, message: str) -> bytes:
        error = {"type": "provider_error", "message": message, "code": code}
        return b"event: error\ndata: " + orjson.dumps({"type": "error", "error": error}) + b"\n\n"


class MessageUsage:
    """The usage of a streamed message, told in part when it starts and in part when it is done."""

    def __init__(self) -> None:
        self._report: dict[str, Any] = {}
        # All that counts until the output is told.
        self.input_only = Usage()

    def start(self, report: Mapping[str, Any]) -> None:
        """Takes what `message_start` says. Its output is a beginning, not a count."""
        self._report = {name: value for name, value in report.items() if value is not None}
        reading = usage_from_anthropic({"output_tokens": 0, **self._report})
        if reading is not None:
            self.input_only = Usage()
            self.input_only.CopyFrom(reading.usage)
            self.input_only.ClearField("output_tokens")

    def take(self, report: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `message_delta` says, on top of what is known; its counts are cumulative."""
        self._report.update({name: value for name, value in report.items() if value is not None})
        return self._report


class MessageStreamReader(StreamReader):
    """Blocks, piece by piece, until `message_stop`."""

    noteworthy = re.compile(rb'"type"\s*:\s*"(?:message_start|message_delta|message_stop|error)"')

    def __init__(self) -> None:
        super().__init__()
        self._usage = MessageUsage()

    def look(self, event: bytes) -> Part:
        message = parse_event(event)
        kind = message.get("type")
        if kind == "message_stop":
            return Part.END
        if kind == "message_start":
            self._start(message.get("message"))
        elif kind == "message_delta":
            self._take(message)
        elif kind == "error":
            self.failed = True
        return Part.ANSWER

    def text(self, message: Mapping[str, Any]) -> str:
        return text_of_event(message)

    def _start(self, message: object) -> None:
        report = message.get("usage") if isinstance(message, dict) else None
        if isinstance(report, dict):
            self._usage.start(report)
            self.counted = self._usage.input_only
            self.service_tier = service_tier_served(report)

    def _take(self, message: Mapping[str, Any]) -> None:
        report = message.get("usage")
        if isinstance(report, dict) and report.get("output_tokens") is not None:
            self.usage = usage_from_anthropic(self._usage.take(report)) or self.usage
        delta = message.get("delta")
        self.finished |= isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str)


def text_of_event(message: Mapping[str, Any]) -> str:
    """What one event of a streamed message adds to its text."""
    if message.get("type") == "content_block_start":
        return "".join(_texts([message.get("content_block")]))
    delta = message.get("delta")
    if message.get("type") != "content_block_delta" or not isinstance(delta, dict):
        return ""
    return "".join(str(delta[name]) for name in ("text", "thinking", "partial_json") if name in delta)


def _texts(content: object) -> Iterable[str]:
    """All texts of content: plain, thought, and of tools."""
    if isinstance(content, str):
        yield content
    for block in objects(content):
        yield from (
            text for text in (block.get(name) for name in ("text", "thinking", "name")) if isinstance(text, str)
        )
        if isinstance(block.get("input"), dict) and block["input"]:
            yield orjson.dumps(block["input"]).decode()
        if block.get("type") == "tool_result":
            yield from _texts(block.get("content"))
