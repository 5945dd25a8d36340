"""One HTTP/1.1 connection to a provider. Carries one call at a time, the next when the answer has come to its end."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.router.routing.routing import Failure
from services.router.upstream.errors import UpstreamError

# Nothing sends more before its body. Without a limit, one header could fill the memory.
_HEAD_BYTES_MAX = 128 * 1024
# An answer that its reader leaves lying for so long is not fetched any further: the provider has to wait, too.
_UNREAD_BYTES_MAX = 256 * 1024
_BROKE_OFF_EARLY = "broke off before it answered"


class Connection(asyncio.Protocol):
    """Made by `Pool`. `send`, then `read` until it says None; what fails raises UpstreamError, then and ever after."""

    def __init__(self, note_closed: Callable[["Connection"], None]) -> None:
        self._note_closed = note_closed
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", None)
        self.is_open = False
        # Since when it has had nothing to do; monotonic.
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._begin()
        self._is_busy = False

    def _begin(self) -> None:
        self._is_busy = True
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = False
        self._head_bytes = 0
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._is_paused = False
        self._can_go_on = False
        # What went wrong, and not the exception: that would hold on to whatever it was raised through.
        self._failure: Failure | None = None
        self._message = ""
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, request: bytes, idle_seconds: float, total_seconds: float) -> None:
        """Sends a request and waits for the head of its answer.

        From here on no byte may take longer than `idle_seconds`, nor the whole answer longer than `total_seconds`.
        """
        self._begin()
        if not self.is_open:
            raise UpstreamError(Failure("broken_stream"), _BROKE_OFF_EARLY)
        self._idle_seconds = idle_seconds
        self._heard = time.monotonic()
        self._deadline = self._heard + total_seconds
        if self._timer is None:
            self._timer = self._loop.call_later(min(idle_seconds, total_seconds), self._look_at_the_clock)
        self._transport.write(request)
        while self.status == 0:
            await self._more()

    async def read(self) -> bytes | None:
        """What has come of the body since the last time, or comes next; None at its end."""
        while not self._pieces:
            if self.is_complete:
                return None
            await self._more()
        pieces, self._pieces, self._unread_bytes = self._pieces, [], 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> bool:
        """No more of this answer is wanted. True when another call can be sent; else the connection is cut."""
        self._is_busy = False
        self._pieces = []
        if self.is_open and self.is_complete and self._can_go_on and not self._is_paused:
            self.idle_since = time.monotonic()
            return True
        self.cut()
        return False

    def cut(self) -> None:
        """Closes it at once, whatever was on its way."""
        self.is_open = False
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    async def secure(self, context: Any, server_name: str) -> None:
        """Speaks TLS from now on: what was spoken before was with a proxy. Raises OSError."""
        # A proxy may be given longer than the provider.
        self._stop_timer()
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=server_name)
        self.connection_made(cast("asyncio.BaseTransport", transport))

    async def _more(self) -> None:
        """Until something has changed. Raises what went wrong."""
        if self._failure is None:
            self._heard = time.monotonic()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None and not self._pieces:
            raise UpstreamError(self._failure, self._message)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error_type: str, message: str) -> None:
        if self._failure is None and not self.is_complete:
            self._failure, self._message = Failure(error_type, self.status), message
        self.cut()
        self._wake()

    def _look_at_the_clock(self) -> None:
        """One timer for one answer after the other: it looks again when it comes too early, as it never is too late."""
        self._timer = None
        if not self._is_busy or self.is_complete:
            return
        now = time.monotonic()
        # Who does not wait for a byte cannot have waited too long for it.
        silent_until = self._heard + self._idle_seconds if self._waiter is not None else now + self._idle_seconds
        if now < self._deadline and now < silent_until:
            wait = min(self._deadline, silent_until) - now
            self._timer = self._loop.call_later(wait, self._look_at_the_clock)
            return
        self._fail("timeout", "did not answer in time" if self.status == 0 else "stopped in mid-answer")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # From here on it is the event loop that calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if not self._is_busy or self.is_complete:
            # Nobody asked. It cannot be known what the next call would get.
            self._can_go_on = False
            self._note_closed(self)
            self.cut()
            return
        self._heard = time.monotonic()
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail("bad_answer", "answered with something that is not HTTP")
            return
        if self.status == 0:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self._fail("bad_answer", f"sent more than {_HEAD_BYTES_MAX} bytes of headers")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._note_closed(self)
        if self._is_busy and not self.is_complete and self._failure is None:
            if error is None and self.status != 0 and not self._is_framed():
                # An answer of the oldest kind: it ends with the connection.
                self.is_complete = True
            else:
                self._fail("broken_stream", _BROKE_OFF_EARLY if self.status == 0 else "broke off in mid-answer")
        self._wake()
        # It knows us as we know it, which would have to be found by the collector.
        del self._parser

    def _is_framed(self) -> bool:
        return b"content-length" in self.headers or b"transfer-encoding" in self.headers

    # From here on it is the parser that calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status == 0:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            # Only a notice: the answer is still to come.
            self.headers.clear()
            return
        self.status = status
        self._wake()

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes > _UNREAD_BYTES_MAX and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status == 0:
            return
        self.is_complete = True
        self._can_go_on = self._parser.should_keep_alive()
        self._wake()
