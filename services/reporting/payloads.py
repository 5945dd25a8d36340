"""What is retained of a call, as people can read it. Pure."""

import base64
import zlib
from codecs import getincrementaldecoder
from typing import NamedTuple

# The router keeps no more of a body than this; it also bounds what a few bytes that expand a thousandfold may cost.
BODY_BYTES_MAX = 1024 * 1024


class Body(NamedTuple):
    """A body as JSON can hold it: text, or anything else in base64."""

    text: str
    is_base64: bool


def body_from_compressed(compressed: bytes) -> Body:
    """The body as it was, or what can still be had of it. Empty where there was none."""
    body = _expanded(compressed)
    decoder = getincrementaldecoder("utf-8")()
    try:
        # A body that was cut short may end within a character, which is left out.
        return Body(decoder.decode(body), is_base64=False)
    except UnicodeDecodeError:
        return Body(base64.b64encode(body).decode(), is_base64=True)


def _expanded(compressed: bytes) -> bytes:
    if not compressed:
        return b""
    try:
        return zlib.decompressobj().decompress(compressed, BODY_BYTES_MAX)
    except zlib.error:
        return b""
