"""What a client asked and was answered, for organizations that retain it. Compressed as it comes, and bounded.

For all others none of this exists: no body gets near the spool or a log.
"""

import asyncio
import zlib

from tollgate.ledger.v1.usage_pb2 import Payload

# Of each body, before and after it is compressed. The ledger refuses more.
BODY_BYTES_MAX = 1024 * 1024
COMPRESSED_BYTES_MAX = 256 * 1024
CONTENT_TYPE_LENGTH_MAX = 128
# Fast rather than small: a body of 20 KiB takes a fifth of a millisecond.
LEVEL = 1
# Larger ones are compressed in another thread, where they hold up no other call.
INLINE_BYTES_MAX = 64 * 1024
_SLICE_BYTES = 16 * 1024
# What zlib may hold back of what it was given, and then write at once; it never has more than its window.
_HELD_BACK_BYTES_MAX = 64 * 1024


class Body:
    """One body, compressed while it comes. Lives as long as its call."""

    def __init__(self) -> None:
        self.content_type = ""
        # True once something was left out.
        self.is_truncated = False
        self._compressor = zlib.compressobj(LEVEL)
        self._pieces: list[bytes] = []
        self._size = 0
        self._compressed_size = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, as far as there is room."""
        for start in range(0, len(data), _SLICE_BYTES):
            if self.is_truncated:
                return
            piece = data[start : start + _SLICE_BYTES]
            room = BODY_BYTES_MAX - self._size
            if len(piece) > room or self._compressed_size > COMPRESSED_BYTES_MAX - _HELD_BACK_BYTES_MAX - _SLICE_BYTES:
                self.is_truncated = True
                piece = piece[: max(room, 0)] if len(piece) > room else b""
            self._size += len(piece)
            self._add(self._compressor.compress(piece))

    def finish(self) -> bytes:
        """All of it, compressed. Nothing may be fed afterwards."""
        if not self._size:
            return b""
        self._add(self._compressor.flush())
        return b"".join(self._pieces)

    def _add(self, compressed: bytes) -> None:
        if compressed:
            self._pieces.append(compressed)
            self._compressed_size += len(compressed)


class PayloadKeeper:
    """Both bodies of one call."""

    def __init__(self) -> None:
        self.request = Body()
        self.response = Body()

    @property
    def is_truncated(self) -> bool:
        return self.request.is_truncated or self.response.is_truncated

    def finish(self) -> Payload:
        """What goes into the record. Nothing may be fed afterwards."""
        return Payload(
            request_body=self.request.finish(),
            request_content_type=self.request.content_type[:CONTENT_TYPE_LENGTH_MAX],
            request_truncated=self.request.is_truncated,
            response_body=self.response.finish(),
            response_content_type=self.response.content_type[:CONTENT_TYPE_LENGTH_MAX],
            response_truncated=self.response.is_truncated,
        )


async def feed_whole(body: Body, data: bytes, content_type: str) -> None:
    """Takes a body that is all there."""
    body.content_type = content_type
    if len(data) <= INLINE_BYTES_MAX:
        body.feed(data)
    else:
        await asyncio.to_thread(body.feed, data)
