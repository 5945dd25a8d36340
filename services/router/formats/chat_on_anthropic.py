"""Chat completions, answered by providers that speak Anthropic's format."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from services.router.formats.chat_completions import text_of_message
from services.router.formats.endpoint import Answer, ModelRequest
from services.router.formats.exchange import AnswerStream, Target, UpstreamCall, json_object
from services.router.formats.messages import MessageUsage
from services.router.formats.translated_stream import TranslatedStream, Translation, chat_usage
from services.router.formats.usage import service_tier_served, usage_from_anthropic
from services.router.translation import from_anthropic
from services.router.translation.chat_answer import completion
from services.router.translation.to_anthropic import message_request


class ChatOnAnthropic:
    """Says requests in Anthropic's words, and answers in OpenAI's."""

    def call(self, request: ModelRequest, target: Target) -> UpstreamCall:
        body = message_request(
            request.members, target.upstream_model, target.output_tokens_max, thinks_by_budget=target.thinks_by_budget
        )
        return UpstreamCall(path="/messages", upstream_model=target.upstream_model, body=orjson.dumps(body))

    def answer(self, request: ModelRequest, body: bytes, created_seconds: int) -> Answer | None:
        message = json_object(body)
        if not isinstance(message.get("content"), list):
            return None
        report = message.get("usage")
        report = report if isinstance(report, dict) else {}
        reading = usage_from_anthropic(report)
        choices = from_anthropic.choices_of(message)
        usage = chat_usage(reading.usage) if reading is not None else None
        said = completion(str(message.get("id", "")), str(message.get("model", "")), created_seconds, choices, usage)
        return Answer(
            body=orjson.dumps(said),
            usage=reading,
            service_tier=service_tier_served(report),
            text=lambda: text_of_message(choices[0]["message"]),
        )

    def open_stream(self, request: ModelRequest, created_seconds: int) -> AnswerStream:
        return TranslatedStream(MessageTranslation(), created_seconds, tells_usage=request.usage_wanted)

    def error(self, body: bytes) -> bytes | None:
        error = from_anthropic.chat_error(json_object(body))
        return orjson.dumps(error) if error is not None else None


class MessageTranslation(Translation):
    """The events of one streamed message."""

    def __init__(self) -> None:
        super().__init__()
        self._deltas = from_anthropic.MessageDeltas()
        self._usage = MessageUsage()

    def take(self, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        match message.get("type"):
            case "message_start":
                self._start(message.get("message"))
            case "message_delta":
                self._take_usage(message.get("usage"))
            case "message_stop":
                self.ended = True
            case "error":
                self.error = from_anthropic.chat_error(message) or from_anthropic.chat_error({"error": {}})
        yield from self._deltas.take(message)

    def _start(self, message: object) -> None:
        if not isinstance(message, dict):
            return
        self.answer_id, self.model = str(message.get("id", "")), str(message.get("model", ""))
        if isinstance(message.get("usage"), dict):
            self._usage.start(message["usage"])
            self.counted = self._usage.input_only
            self.service_tier = service_tier_served(message["usage"])

    def _take_usage(self, report: object) -> None:
        if isinstance(report, dict) and report.get("output_tokens") is not None:
            self.usage = usage_from_anthropic(self._usage.take(report)) or self.usage
