"""Chat completions, answered by providers that speak Gemini's format."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from services.router.formats.chat_completions import text_of_message
from services.router.formats.endpoint import Answer, ModelRequest
from services.router.formats.exchange import AnswerStream, Target, UpstreamCall, json_object
from services.router.formats.translated_stream import TranslatedStream, Translation, chat_usage
from services.router.formats.usage import searches_charged_by_google, usage_from_gemini
from services.router.translation import from_gemini
from services.router.translation.chat_answer import completion
from services.router.translation.to_gemini import content_request


class ChatOnGemini:
    """Says requests in Gemini's words, and answers in OpenAI's."""

    def call(self, request: ModelRequest, target: Target) -> UpstreamCall:
        body = content_request(request.members, target.output_tokens_max, thinks_by_budget=target.thinks_by_budget)
        method = "streamGenerateContent?alt=sse" if request.streamed else "generateContent"
        return UpstreamCall(
            path=f"/models/{quote(target.upstream_model, safe='')}:{method}",
            upstream_model=target.upstream_model,
            body=orjson.dumps(body),
        )

    def answer(self, request: ModelRequest, body: bytes, created_seconds: int) -> Answer | None:
        response = json_object(body)
        if not from_gemini.is_answer(response):
            return None
        report = response.get("usageMetadata")
        model = str(response.get("modelVersion", ""))
        searches = searches_charged_by_google(model, from_gemini.searches_in(response))
        reading = usage_from_gemini(report, searches) if isinstance(report, dict) else None
        choices = from_gemini.choices_of(response)
        usage = chat_usage(reading.usage) if reading is not None else None
        said = completion(str(response.get("responseId", "")), model, created_seconds, choices, usage)
        return Answer(
            body=orjson.dumps(said),
            usage=reading,
            rejected=from_gemini.is_blocked(response),
            text=lambda: "".join(text_of_message(choice["message"]) for choice in choices),
        )

    def open_stream(self, request: ModelRequest, created_seconds: int) -> AnswerStream:
        return TranslatedStream(ContentTranslation(), created_seconds, tells_usage=request.usage_wanted)

    def error(self, body: bytes) -> bytes | None:
        error = from_gemini.chat_error(json_object(body))
        return orjson.dumps(error) if error is not None else None


class ContentTranslation(Translation):
    """The responses of one stream. Their usage grows; the last one counts. They end with their last byte."""

    def __init__(self) -> None:
        super().__init__()
        self._deltas = from_gemini.ContentDeltas()
        self._searches = 0
        self._finished = False

    def take(self, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.error = from_gemini.chat_error(message)
        self.answer_id = str(message.get("responseId", self.answer_id))
        self.model = str(message.get("modelVersion", self.model))
        self.rejected |= from_gemini.is_blocked(message)
        self._searches += from_gemini.searches_in(message)
        report = message.get("usageMetadata")
        for choice in self._deltas.take(message):
            self._finished |= choice["finish_reason"] is not None
            yield choice
        if isinstance(report, dict):
            self._take_usage(report)

    def _take_usage(self, report: Mapping[str, Any]) -> None:
        reading = usage_from_gemini(report, searches_charged_by_google(self.model, self._searches))
        if reading is None:
            return
        if self._finished:
            self.usage = reading
        else:
            # Until then the output is a beginning, not a count.
            self.counted.CopyFrom(reading.usage)
            for name in ("output_tokens", "reasoning_tokens", "output_image_tokens", "output_audio_tokens"):
                self.counted.ClearField(name)
