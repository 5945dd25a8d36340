"""OpenAI chat completions: `POST /v1/chat/completions`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Answer, Endpoint, EndpointNumber, ModelRequest
from services.router.formats.estimation import Tokenizer
from services.router.formats.event_stream import Part, StreamReader, data_of, parse_event
from services.router.formats.members import objects, optional_member
from services.router.formats.usage import service_tier_served, usage_from_openai

END_MARKER = b"[DONE]"
# What the format itself adds, as OpenAI documents it: for each message, and for the beginning of the answer.
_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_ANSWER = 3


class ChatCompletions(Endpoint):
    """Messages in, a message out."""

    name = "chat_completions"
    path = "/v1/chat/completions"
    number = EndpointNumber.CHAT_COMPLETIONS
    upstream_path = "/chat/completions"

    def check(self, members: Mapping[str, Any]) -> None:
        if not isinstance(members.get("messages"), list) or not members["messages"]:
            raise InvalidRequestError("messages", "must be a list with at least one message")
        # Some providers read a text or a fraction as a number, and give as many answers.
        if optional_member(members, "n", int, 1) < 1:
            raise InvalidRequestError("n", "must be a whole number from 1")

    def wants_usage(self, members: Mapping[str, Any]) -> bool:
        return optional_member(members, "stream_options", dict, {}).get("include_usage") is True

    def usage_request(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"stream_options": {**(members.get("stream_options") or {}), "include_usage": True}}

    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        messages = members.get("messages")
        messages = messages if isinstance(messages, list) else []
        counts = (_TOKENS_PER_MESSAGE + tokenizer.count(text_of_message(each)) for each in messages)
        return sum(counts) + _TOKENS_PER_ANSWER

    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        choices = message.get("choices")
        if not isinstance(choices, list):
            return None
        report = message.get("usage")
        return Answer(
            body=body,
            usage=usage_from_openai(report) if isinstance(report, dict) else None,
            service_tier=service_tier_served(message),
            text=lambda: "".join(text_of_message(each.get("message")) for each in objects(choices)),
        )

    def stream_reader(self, request: ModelRequest) -> StreamReader:
        return ChatStreamReader(hides_usage=not request.usage_wanted)

    def error_event(self, code: str, message: str) -> bytes:
        error = {"error": {"message": message, "type": "provider_error", "code": code}}
        return b"data: " + orjson.dumps(error) + b"\n\n"


class ChatStreamReader(StreamReader):
    """Chunks until `[DONE]`; the usage in the last of them, where it was asked for."""

    # Each chunk may have a usage that is null.
    noteworthy = re.compile(rb'"usage"\s*:\s*\{')

    def __init__(self, *, hides_usage: bool) -> None:
        super().__init__()
        self._hides_usage = hides_usage

    def is_noteworthy(self, data: bytes) -> bool:
        # One pattern for all three takes three times as long, for each chunk of each answer.
        return b"[DONE]" in data or b'"error"' in data or super().is_noteworthy(data)

    def look(self, event: bytes) -> Part:
        if data_of(event) == END_MARKER:
            return Part.END
        message = parse_event(event)
        self.failed |= bool(message.get("error"))
        report = message.get("usage")
        if not isinstance(report, dict):
            return Part.ANSWER
        self.usage = usage_from_openai(report) or self.usage
        self.service_tier = service_tier_served(message)
        return Part.REPORT if self._hides_usage and message.get("choices") == [] else Part.ANSWER

    def has_finished(self, messages: Iterable[Mapping[str, Any]]) -> bool:
        return any(isinstance(choice.get("finish_reason"), str) for each in messages for choice in _choices(each))

    def text(self, message: Mapping[str, Any]) -> str:
        return "".join(text_of_message(choice.get("delta")) for choice in _choices(message))


def text_of_message(message: object) -> str:
    """All that a message, or a streamed piece of one, says: content, refusal, reasoning, and calls of tools."""
    return "".join(_texts(message))


def _texts(message: object) -> Iterable[str]:
    if not isinstance(message, dict):
        return
    for member in ("content", "refusal", "reasoning_content", "reasoning"):
        value = message.get(member)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (part["text"] for part in objects(value) if isinstance(part.get("text"), str))
    for call in objects(message.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, dict):
            yield from (text for text in (function.get("name"), function.get("arguments")) if isinstance(text, str))


def _choices(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return objects(message.get("choices"))
