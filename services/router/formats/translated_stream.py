"""A streamed answer of another format, passed on as chunks of a chat completion."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from services.router.formats.chat_completions import text_of_message
from services.router.formats.event_stream import (
    EVENT_BYTES_MAX,
    EventSplitter,
    EventTooLongError,
    parse_event,
    split_events,
)
from services.router.formats.usage import UsageReading
from tollgate.ledger.v1.usage_pb2 import Usage

_DONE = b"data: [DONE]\n\n"


class Translation(ABC):
    """Knows the events of one format. Lives as long as the stream."""

    def __init__(self) -> None:
        self.answer_id = ""
        self.model = ""
        self.usage: UsageReading | None = None
        self.service_tier = ""
        self.counted = Usage()
        self.rejected = False
        # True when the format's own end has come; what has none of its own ends with its last byte.
        self.ended = False
        # What went wrong, in OpenAI's words, once something did.
        self.error: Mapping[str, Any] | None = None

    @abstractmethod
    def take(self, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Takes note of what an event says. Returns the choices it adds to."""


class TranslatedStream:
    """One streamed chat completion, answered in another format. Lives as long as the stream."""

    def __init__(self, translation: Translation, created_seconds: int, *, tells_usage: bool) -> None:
        self._translation = translation
        self._created_seconds = created_seconds
        self._tells_usage = tells_usage
        self._splitter = EventSplitter()
        self._texts: list[str] = []
        self._finished = False
        self._ending = b""

    def feed(self, chunk: bytes) -> bytes:
        """Takes bytes as they came, split anywhere. Returns what the client may have now."""
        whole = self._splitter.feed(chunk)
        if self._splitter.waiting_bytes > EVENT_BYTES_MAX:
            raise EventTooLongError
        return self._translated(whole)

    def end(self) -> bytes:
        """What may still go to the client before the end marker, when no more bytes come."""
        last = self._translated(self._splitter.rest())
        if self._finished and not self._ending and not self.failed:
            self._ending = self._end()
        return last

    @property
    def held(self) -> bytes:
        """The usage, where it was asked for, and the end marker."""
        return self._ending

    @property
    def is_complete(self) -> bool:
        """True when the answer came to its end."""
        return self._finished and not self.failed

    @property
    def failed(self) -> bool:
        """True once the provider sent an error, which was passed on."""
        return self._translation.error is not None

    @property
    def rejected(self) -> bool:
        """True when the prompt was refused by the provider's content filter."""
        return self._translation.rejected

    @property
    def usage(self) -> UsageReading | None:
        """What was reported last."""
        return self._translation.usage

    @property
    def service_tier(self) -> str:
        """The tier that was served."""
        return self._translation.service_tier

    @property
    def counted(self) -> Usage:
        """What could be counted."""
        return self._translation.counted

    @property
    def output_text(self) -> str:
        """All text of the answer so far."""
        return "".join(self._texts)

    def _translated(self, whole: bytes) -> bytes:
        return b"".join(piece for event in split_events(whole) for piece in self._pieces(parse_event(event)))

    def _pieces(self, message: Mapping[str, Any]) -> Iterator[bytes]:
        if self._ending or self.failed:
            return
        for choice in self._translation.take(message):
            self._texts.append(text_of_message(choice["delta"]))
            self._finished |= choice["finish_reason"] is not None
            yield self._chunk([choice])
        if self._translation.error is not None:
            yield b"data: " + orjson.dumps(self._translation.error) + b"\n\n"
        elif self._translation.ended:
            self._ending = self._end()

    def _end(self) -> bytes:
        if not self._tells_usage or self._translation.usage is None:
            return _DONE
        return self._chunk([], chat_usage(self._translation.usage.usage)) + _DONE

    def _chunk(self, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None = None) -> bytes:
        body: dict[str, Any] = {
            "id": self._translation.answer_id,
            "object": "chat.completion.chunk",
            "created": self._created_seconds,
            "model": self._translation.model,
            "choices": choices,
        }
        if self._tells_usage:
            body["usage"] = usage
        return b"data: " + orjson.dumps(body) + b"\n\n"


def chat_usage(usage: Usage) -> dict[str, Any]:
    """A usage as chat completions report it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }
