"""The bytes that an answer begins with. Pure but for the time of day."""

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

Headers = Sequence[tuple[str, str]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = "transfer-encoding: chunked\r\n"
CLOSE = "connection: close\r\n"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def content_length(body: bytes) -> str:
    return f"content-length: {len(body)}\r\n"


def response_head(status: int, headers: Headers, framing: str, ending: str) -> bytes:
    """Status, date, these headers, and in lines of their own how the body ends and what becomes of the connection.

    Raises ValueError for a header that would become several.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header holds the end of a line")
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n{_date(int(time.time()))}{lines}{framing}{ending}\r\n"
    return head.encode()


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return f"date: {formatdate(seconds, usegmt=True)}\r\n"
