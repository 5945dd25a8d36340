"""Reads along with a stream of server-sent events, without parsing each of them.

Whole events pass on byte for byte. Held back are the end marker, so that the record can be made durable first, and an
event that only reports the usage, where the client did not ask for one.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from services.router.estimation import text_of_message
from services.router.usage import service_tier_served

END_MARKER = b"[DONE]"
# An event that never ends would otherwise fill the memory.
EVENT_BYTES_MAX = 16 * 1024 * 1024
# So much of a stream is kept as it came. What is older is kept packed, to a tenth and less, and in most streams never
# looked at again: it is needed only where the provider reports no usage.
_RAW_BYTES_MAX = 8 * 1024
_FASTEST = 1

# The blank line that ends an event, whichever way the provider ends its lines.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# Quotes inside JSON strings are escaped, so neither can be part of the text of an answer.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'"error"\s*:\s*[{"]')


class EventTooLongError(Exception):
    """The provider sent an event above the limit."""


class ChatEventStream:
    """One streamed chat completion on its way through. Lives as long as the stream."""

    def __init__(self, *, hides_usage: bool) -> None:
        self._hides_usage = hides_usage
        self._unfinished = b""
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._packed: list[bytes] = []
        self._held = b""
        # The last `usage` that was reported, as the provider wrote it.
        self.usage_report: dict[str, Any] | None = None
        self.service_tier = ""
        # True once the provider sent an error where the answer should go on.
        self.failed = False

    def feed(self, chunk: bytes) -> bytes:
        """Takes bytes as they came, split anywhere. Returns what the client may have now; often that is the chunk."""
        if self._unfinished:
            chunk = self._unfinished + chunk
        whole, self._unfinished = _split_after_last_event(chunk)
        if len(self._unfinished) > EVENT_BYTES_MAX:
            raise EventTooLongError
        if not whole:
            return b""
        self._keep(whole)
        if self._held or END_MARKER in whole or _USAGE.search(whole) or _ERROR.search(whole):
            return b"".join(self._passed_on(whole))
        return whole

    def end(self) -> bytes:
        """What may still go to the client before the end marker, when no more bytes come."""
        rest, self._unfinished = self._unfinished, b""
        if not rest:
            return b""
        self._keep(rest)
        return b"".join(self._passed_on(rest))

    @property
    def held(self) -> bytes:
        """The end marker and whatever came after it. Empty while there was none."""
        return self._held

    @property
    def is_complete(self) -> bool:
        """True when the answer came to its end: with the marker, or at least with a reason for finishing."""
        return not self.failed and (bool(self._held) or self._has_finish_reason())

    @property
    def output_text(self) -> str:
        """All text of the answer so far. Parses, so only for when the provider reports no usage."""
        return "".join(text_of_message(choice.get("delta")) for choice in self._choices())

    def _has_finish_reason(self) -> bool:
        return any(isinstance(choice.get("finish_reason"), str) for choice in self._choices())

    def _passed_on(self, whole: bytes) -> Iterator[bytes]:
        for event in _events(whole):
            if self._held or _data(event) == END_MARKER:
                self._held += event
            elif not (self._is_usage_only(event) and self._hides_usage):
                yield event

    def _is_usage_only(self, event: bytes) -> bool:
        """Takes note of what an event reports. True when it reports a usage and says nothing else."""
        if _ERROR.search(event):
            self.failed |= bool(_parsed(event).get("error"))
        if not _USAGE.search(event):
            return False
        message = _parsed(event)
        usage = message.get("usage")
        if not isinstance(usage, dict):
            return False
        self.usage_report = usage
        self.service_tier = service_tier_served(message)
        return message.get("choices") == []

    def _keep(self, whole: bytes) -> None:
        self._raw.append(whole)
        self._raw_bytes += len(whole)
        if self._raw_bytes > _RAW_BYTES_MAX:
            self._packed.append(zlib.compress(b"".join(self._raw), _FASTEST))
            self._raw.clear()
            self._raw_bytes = 0

    def _choices(self) -> Iterator[dict[str, Any]]:
        """All choices of all events so far."""
        for block in (*map(zlib.decompress, self._packed), b"".join(self._raw)):
            for event in _events(block):
                yield from _choices(event)


def _split_after_last_event(data: bytes) -> tuple[bytes, bytes]:
    if data.endswith(b"\n\n"):
        return data, b""
    end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3, data.rfind(b"\r\r") + 2)
    # `rfind` answers -1 for nothing, which becomes at most 2 here: too short for an event to end there.
    return (data[:end], data[end:]) if end > 2 else (b"", data)


def _events(whole: bytes) -> Iterator[bytes]:
    start = 0
    for match in _EVENT_END.finditer(whole):
        yield whole[start : match.end()]
        start = match.end()
    if start < len(whole):
        yield whole[start:]


def _data(event: bytes) -> bytes:
    """The data of an event: its `data:` lines, joined."""
    lines = (line[5:].strip() for line in _LINE_END.split(event) if line.startswith(b"data:"))
    return b"\n".join(lines)


def _parsed(event: bytes) -> dict[str, Any]:
    """The JSON object an event carries; empty when it carries none."""
    try:
        message = orjson.loads(_data(event))
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _choices(event: bytes) -> list[dict[str, Any]]:
    choices = _parsed(event).get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
