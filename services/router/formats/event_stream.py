"""Reads along with a stream of server-sent events, without parsing each of them.

Whole events pass on byte for byte. Held back are the end marker, so that the record can be made durable first, and
events that only report what the client did not ask for.
"""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, ClassVar

import orjson

from services.router.formats.usage import UsageReading
from tollgate.ledger.v1.usage_pb2 import Usage

# An event that never ends would otherwise fill the memory.
EVENT_BYTES_MAX = 16 * 1024 * 1024
# So much of a stream is kept as it came. What is older is kept packed, to a tenth and less, and in most streams never
# looked at again: it is needed only where the provider reports no usage. Packing less at a time takes longer.
_RAW_BYTES_MAX = 16 * 1024
_FASTEST = 1

# The blank line that ends an event, whichever way the provider ends its lines.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
_EVENT_END_BYTES_MAX = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLongError(Exception):
    """The provider sent an event above the limit."""


class Part(Enum):
    """What an event is to the client."""

    ANSWER = "goes on"
    REPORT = "stays here"
    END = "goes on last"


class EventSplitter:
    """Puts chunks together until they end where an event ends. Lives as long as the stream."""

    def __init__(self) -> None:
        self._unfinished = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """How much of an event is there whose end has not come."""
        return len(self._unfinished)

    def feed(self, chunk: bytes) -> bytes:
        """All events that are whole by now, as they came."""
        if not self._unfinished:
            end = _end_of_last_event(chunk, 0)
            self._unfinished += chunk[end:]
            return chunk[:end]
        # Only where the new bytes are can there be an end that was not seen yet.
        start = max(0, len(self._unfinished) - _EVENT_END_BYTES_MAX)
        self._unfinished += chunk
        end = _end_of_last_event(self._unfinished, start)
        whole = bytes(self._unfinished[:end])
        del self._unfinished[:end]
        return whole

    def rest(self) -> bytes:
        """What waits, when no more comes."""
        rest = bytes(self._unfinished)
        self._unfinished.clear()
        return rest


class StreamReader(ABC):
    """Knows the events of one format, and takes note of what they say. Lives as long as the stream."""

    # Occurs in every event that has to be looked at, and never inside the text of an answer: quotes are escaped there.
    noteworthy: ClassVar[re.Pattern[bytes]]
    # False where events are large and no text is ever counted.
    keeps_text: ClassVar[bool] = True

    def __init__(self) -> None:
        self.usage: UsageReading | None = None
        self.service_tier = ""
        self.counted = Usage()
        # True once the provider sent an error where the answer should go on.
        self.failed = False
        # True when the answer can be taken as whole even if no end marker comes.
        self.finished = False

    def is_noteworthy(self, data: bytes) -> bool:
        """Whether there is anything in it that has to be looked at."""
        return self.noteworthy.search(data) is not None

    @abstractmethod
    def look(self, event: bytes) -> Part:
        """Takes note of a noteworthy event."""

    def has_finished(self, messages: Iterable[Mapping[str, Any]]) -> bool:
        """Whether all that was said, given again, amounts to a whole answer."""
        return self.finished

    @abstractmethod
    def text(self, message: Mapping[str, Any]) -> str:
        """What one event adds to the text of the answer."""


class EventStream:
    """One streamed answer on its way through, in the client's own format. Lives as long as the stream."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._splitter = EventSplitter()
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._packed: list[bytes] = []
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Takes bytes as they came, split anywhere. Returns what the client may have now; often that is the chunk."""
        whole = self._splitter.feed(chunk)
        if self._splitter.waiting_bytes > EVENT_BYTES_MAX:
            raise EventTooLongError
        if not whole:
            return b""
        self._keep(whole)
        if self._held or self._reader.is_noteworthy(whole):
            return b"".join(self._passed_on(whole))
        return whole

    def end(self) -> bytes:
        """What may still go to the client before the end marker, when no more bytes come."""
        rest = self._splitter.rest()
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
        return not self.failed and (bool(self._held) or self._reader.has_finished(self._messages()))

    @property
    def failed(self) -> bool:
        """True once the provider sent an error where the answer should go on."""
        return self._reader.failed

    @property
    def rejected(self) -> bool:
        """Never: these formats have words of their own for it."""
        return False

    @property
    def usage(self) -> UsageReading | None:
        """What was reported last."""
        return self._reader.usage

    @property
    def service_tier(self) -> str:
        """The tier that was served."""
        return self._reader.service_tier

    @property
    def counted(self) -> Usage:
        """What could be counted."""
        return self._reader.counted

    @property
    def output_text(self) -> str:
        """All text of the answer so far. Parses, so only for when the provider reports no usage."""
        return "".join(map(self._reader.text, self._messages()))

    def _passed_on(self, whole: bytes) -> Iterator[bytes]:
        for event in split_events(whole):
            part = self._reader.look(event) if self._reader.is_noteworthy(event) else Part.ANSWER
            if self._held or part is Part.END:
                self._held += event
            elif part is Part.ANSWER:
                yield event

    def _keep(self, whole: bytes) -> None:
        if not self._reader.keeps_text:
            return
        self._raw.append(whole)
        self._raw_bytes += len(whole)
        if self._raw_bytes > _RAW_BYTES_MAX:
            self._packed.append(zlib.compress(b"".join(self._raw), _FASTEST))
            self._raw.clear()
            self._raw_bytes = 0

    def _messages(self) -> Iterator[dict[str, Any]]:
        """What all events so far carried."""
        for block in (*map(zlib.decompress, self._packed), b"".join(self._raw)):
            yield from map(parse_event, split_events(block))


def split_events(whole: bytes) -> Iterator[bytes]:
    """The events, each with the blank line that ends it; at the end perhaps one without."""
    start = 0
    for match in _EVENT_END.finditer(whole):
        yield whole[start : match.end()]
        start = match.end()
    if start < len(whole):
        yield whole[start:]


def data_of(event: bytes) -> bytes:
    """The data of an event: its `data:` lines, joined."""
    lines = (line[5:].strip() for line in _LINE_END.split(event) if line.startswith(b"data:"))
    return b"\n".join(lines)


def parse_event(event: bytes) -> dict[str, Any]:
    """The JSON object an event carries; empty when it carries none."""
    try:
        message = orjson.loads(data_of(event))
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _end_of_last_event(data: bytes | bytearray, start: int) -> int:
    """Where the last event that begins before the end of the data ends; 0 when none does."""
    if data.endswith(b"\n\n"):
        return len(data)
    ends = ((data.rfind(mark, start), len(mark)) for mark in (b"\n\n", b"\n\r\n", b"\r\r"))
    return max(found + length if found >= 0 else 0 for found, length in ends)
