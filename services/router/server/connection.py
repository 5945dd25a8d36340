"""One HTTP/1.1 connection from a client. Answers its requests one after the other."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from services.router.errors import ClientGoneError
from services.router.server.request import Request
from services.router.server.response_head import CLOSE, content_length, response_head

# From the first byte of a request, or of the connection, to the last of its head.
HEAD_SECONDS = 10.0
# Longer than those keep a connection who call through it: who closes first never meets a call that is on its way.
IDLE_SECONDS = 120.0
# What a client may let us wait that does not take what it asked for.
STALLED_SECONDS = 60.0
# Who takes as much of it in that time gets the same time again.
TAKEN_BYTES_MIN = 64 * 1024
# To read away what a client is still sending, so that it sees our answer and not a broken connection.
LINGER_SECONDS = 2.0
HEAD_BYTES_MAX = 64 * 1024
# Putting many together takes time that grows with their square.
REPEATED_HEADERS_MAX = 64
# Longer names are not remembered.
_NAME_LENGTH = 64
# Requests that came before their turn. One packet can hold thousands of small ones.
WAITING_MAX = 256
_FRAMING = ("content-length", "transfer-encoding")
_TEXT = ("content-type", "text/plain")

Handle = Callable[[Request], Awaitable[None]]

log = logging.getLogger("tollgate.http")


class Connection(asyncio.Protocol):
    """Made by `HttpServer`, which tells it when its deadline has passed."""

    def __init__(self, handle: Handle, connections: "set[Connection]", tasks: set[asyncio.Task[None]]) -> None:
        self._handle = handle
        # Of the server: all there are, and what they do.
        self._connections = connections
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", None)
        self._parser: HttpRequestParser
        self.client = ""
        # When the server looks whether to cut it off; monotonic.
        self.deadline = 0.0
        self.is_draining = False
        # Done when it is closed.
        self.gone = self._loop.create_future()
        # More than it should is waiting to be sent.
        self.is_full = False
        # How much that was when last looked at.
        self._unsent_bytes = 0
        self._drain_waiter: asyncio.Future[None] | None = None
        # Of the request whose head arrives.
        self._url = b""
        self._headers: dict[str, str] = {}
        # Of packets after the one with its first byte; also what is neither head nor body, such as trailers.
        self._head_bytes = 0
        self._repeat_count = 0
        self._is_in_head = False
        # The request whose body arrives, the one that is being answered, and those whose turn comes after it.
        self._arriving: Request | None = None
        self._answering: Request | None = None
        self._waiting: deque[Request] = deque()
        self._is_paused = False
        # What still arrives is thrown away.
        self._is_over = False

    def drain(self) -> None:
        """Takes no more requests than have come already."""
        self.is_draining = True
        if self._answering is None and not self._is_over:
            # The last answer may still be on its way.
            self._hang_up(is_sending=False)

    def expire(self) -> None:
        """Its deadline has passed."""
        unsent_bytes = self._transport.get_write_buffer_size()
        if 0 < unsent_bytes <= self._unsent_bytes - TAKEN_BYTES_MIN:
            self._unsent_bytes, self.deadline = unsent_bytes, time.monotonic() + STALLED_SECONDS
        else:
            self.cut()

    def cut(self) -> None:
        """Closes it at once."""
        self._is_over = True
        self._transport.abort()

    def write(self, data: bytes) -> None:
        """Sends it, some time. Nothing happens when nobody is there."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        """Returns when more should be written. Raises ClientGoneError."""
        if self._answering is not None and self._answering.is_gone:
            raise ClientGoneError
        self._drain_waiter = self._loop.create_future()
        await self._drain_waiter

    def go_on_reading(self) -> None:
        """Lets more come, where there was too much."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _begin(self, request: Request) -> None:
        self._answering = request
        # Answers before it come first, if the client takes them.
        self.deadline = time.monotonic() + STALLED_SECONDS if self.is_full else math.inf
        task = self._loop.create_task(self._answer(request))
        self._tasks.add(task)
        # Also when it is cancelled before its first step.
        task.add_done_callback(self._answered)

    async def _answer(self, request: Request) -> None:
        if self.is_full:
            await self.drained()
        await self._handle(request)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ClientGoneError):
            log.error("a request was left without an answer", exc_info=error)
        request, self._answering = self._answering, None
        if request is None or request.is_gone:
            return
        if not request.is_answered:
            # What it would take for a whole answer must not look like one.
            self.cut()
        elif request.is_last or not request.is_complete:
            self._hang_up(is_sending=not request.is_complete)
        elif self._waiting:
            self._begin(self._waiting.popleft())
            if not self._waiting:
                self.go_on_reading()
        elif self.is_draining:
            self._hang_up(is_sending=False)
        else:
            self.deadline = time.monotonic() + IDLE_SECONDS

    def _hang_up(self, *, is_sending: bool) -> None:
        """Closes it when all is sent. A client that has not sent all yet could miss that: it is listened to a while."""
        self._is_over = True
        self.deadline = time.monotonic() + (LINGER_SECONDS if is_sending else STALLED_SECONDS)
        if is_sending:
            self.go_on_reading()
            with suppress(OSError):  # the client is gone, which the event loop has not seen yet
                self._transport.write_eof()
        else:
            self._transport.close()

    def _feed(self, data: bytes) -> bytes:
        """Returns what the parser left of it."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            # To another protocol, from the end of the head on. As we speak none it is an ordinary request, whose body
            # takes a parser that knows no more of it than how it ends.
            self._parser = HttpRequestParser(self)
            if self._arriving is not None:
                self._parser.feed_data(_head_of_body(self._arriving))
            return data[upgrade.args[0] :]
        return b""

    def _refuse(self, status: int, why: str) -> None:
        """Of what is no request. Whatever is being answered on it ends too."""
        body = f"{why}\n".encode()
        if self._answering is None and not self._is_over:
            self.write(response_head(status, [_TEXT], content_length(body), CLOSE) + body)
            self._hang_up(is_sending=True)
        else:
            self.cut()

    # From here on it is the event loop that calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.client = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._parser = HttpRequestParser(self)
        self.deadline = time.monotonic() + HEAD_SECONDS
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        rest = data
        self._head_bytes += len(data)
        try:
            while rest:
                rest = self._feed(rest)
        except HttpParserError:
            last = self._waiting[-1] if self._waiting else self._answering
            if last is None or not (last.is_last and last.is_complete):
                self._refuse(400, "This is not an HTTP/1.1 request.")
            return
        if self._head_bytes > HEAD_BYTES_MAX and (self._is_in_head or self._arriving is not None):
            self._refuse(431, f"The head of a request may have {HEAD_BYTES_MAX} bytes.")

    def pause_writing(self) -> None:
        self.is_full = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self.deadline = time.monotonic() + STALLED_SECONDS

    def resume_writing(self) -> None:
        self.is_full = False
        if self._answering is not None:
            self.deadline = math.inf
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self.gone.set_result(None)
        for request in (self._arriving, self._answering):
            if request is not None:
                request.lose()
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_exception(ClientGoneError())
        self._waiting.clear()
        # They know us as we know them, which would have to be found by the collector.
        self._arriving = None
        del self._parser

    # From here on it is the parser that calls.

    def on_message_begin(self) -> None:
        if self._arriving is not None:
            return  # said again, as what comes is its body
        self._url, self._headers, self._head_bytes, self._repeat_count, self._is_in_head = b"", {}, 0, 0, True
        if self._answering is None:
            self.deadline = time.monotonic() + HEAD_SECONDS

    def on_url(self, piece: bytes) -> None:
        self._url += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # behind a body, where nobody looks
        key, text = _header_name(name), value.decode("latin-1").rstrip(" \t")
        if key in self._headers:
            self._repeat(key, text)
        else:
            self._headers[key] = text

    def _repeat(self, name: str, text: str) -> None:
        """One list, as RFC 9110 has it in 5.3."""
        self._repeat_count += 1
        if self._repeat_count > REPEATED_HEADERS_MAX or name == "host":
            raise ValueError("too many headers of one name")
        self._headers[name] += f", {text}"

    def on_headers_complete(self) -> None:
        if self._arriving is not None:
            return
        parser = self._parser
        if self._headers.get("transfer-encoding", "chunked").lower() != "chunked":
            # The parser would find out after us, or take what we cannot unpack.
            raise ValueError("a body in something else than chunks")
        version = parser.get_http_version()
        if version == "1.1" and "host" not in self._headers:
            raise ValueError("no host, as RFC 9112 has it in 3.2")
        request = Request(self, version, parser.get_method().decode(), _path(self._url), self._headers)
        self._arriving, self._is_in_head = request, False
        if self._answering is None:
            self._begin(request)
        else:
            # One at a time: what else the client sends has to wait where it is.
            if len(self._waiting) == WAITING_MAX:
                raise ValueError("too many requests at once")
            self._waiting.append(request)
            self._pause_reading()

    def on_body(self, piece: bytes) -> None:
        request = self._arriving
        if request is None:
            return
        self._head_bytes = 0
        request.add(piece)
        if request.unread_bytes > request.room:
            self._pause_reading()

    def on_message_complete(self) -> None:
        request, parser = self._arriving, self._parser
        if request is None:
            return
        if not parser.should_keep_alive():
            request.is_last = True
        if parser.should_upgrade():
            return  # its body is still to be read
        request.complete()
        self._arriving = None
        if not self._waiting:
            # Nobody has to ask any more for what is there.
            self.go_on_reading()


def _head_of_body(request: Request) -> bytes:
    """Which says nothing but where the body ends."""
    framing = [f"{name}: {request.headers[name]}\r\n" for name in _FRAMING if name in request.headers]
    return f"POST / HTTP/1.1\r\n{''.join(framing)}\r\n".encode()


def _path(url: bytes) -> str:
    """Without the query. To a proxy, as which some clients see us, they say the whole address."""
    path = url.partition(b"?")[0] if url.startswith(b"/") else parse_url(url).path or b"/"
    return path.decode("latin-1")


def _header_name(name: bytes) -> str:
    return _known_name(name) if len(name) < _NAME_LENGTH else name.decode("latin-1").lower()


@lru_cache(maxsize=1_024)
def _known_name(name: bytes) -> str:
    return name.decode("latin-1").lower()
