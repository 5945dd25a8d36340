"""One request of a client: what it says, its body as it arrives, and the way to answer it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from services.router.errors import BodyTooLargeError, ClientGoneError
from services.router.server.response_head import CHUNKED, CLOSE, CONTINUE, Headers, content_length, response_head

if TYPE_CHECKING:
    from services.router.server.connection import Connection

_LAST_CHUNK = b"0\r\n\r\n"
# What waits of a body that nobody has asked for yet.
_UNREAD_BYTES_MAX = 256 * 1024


def _hold_nothing(_: int) -> None: ...


class Request:
    """Made by a connection, and answered with `respond`, or with `begin_stream`, `send` and `end_stream`.

    One that is left without an answer, or in the middle of it, costs the client its connection.
    """

    # fmt: off
    __slots__ = (
        "_body", "_connection", "_is_chunked", "_is_stream", "_waiter",
        "headers", "is_answered", "is_complete", "is_gone", "is_last", "method", "path", "room",
    )
    # fmt: on

    def __init__(
        self, connection: "Connection", version: str, method: str, path: str, headers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self.method = method
        # As sent: without the query, and still percent-encoded.
        self.path = path
        # Names in lower case.
        self.headers = headers
        # No other is answered on its connection. Who speaks the oldest HTTP knows neither chunks nor 100.
        self.is_last = version != "1.1"
        self._is_chunked = not self.is_last
        # The answer has begun, as one.
        self._is_stream = False
        # All of its body is here.
        self.is_complete = False
        # How much of its body may be here: when there is more, no more is read.
        self.room = _UNREAD_BYTES_MAX
        # Nobody is there any more to send the rest, or to be answered.
        self.is_gone = False
        # To its end.
        self.is_answered = False
        # Nearly always one piece, which is left as it is.
        self._body: bytes | bytearray = b""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def client(self) -> str:
        """Address and port of whoever is at the other end."""
        return self._connection.client

    @property
    def unread_bytes(self) -> int:
        """What is here of the body."""
        return len(self._body)

    async def body(self, bytes_max: int, hold: Callable[[int], None] = _hold_nothing) -> bytes:
        """All of it. Raises BodyTooLargeError, at once where its length is announced, and ClientGoneError.

        `hold` is told how much of it is here by now, and may raise what it likes.
        """
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > bytes_max:
            raise BodyTooLargeError("the body", bytes_max)
        self.room = bytes_max
        if not self.is_complete:
            self._ask_for_more()
        hold(len(self._body))
        while not self.is_complete and len(self._body) <= bytes_max:
            await self._more()
            hold(len(self._body))
        if len(self._body) > bytes_max:
            raise BodyTooLargeError("the body", bytes_max)
        return bytes(self._body)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answers in one piece. Nothing happens when nobody is there, or a stream has begun: that then breaks off."""
        if self._is_stream:
            return
        head = response_head(status, headers, content_length(body), self._ending())
        self._connection.write(head if self.method == "HEAD" else head + body)
        self.is_answered = True

    def begin_stream(self, status: int, headers: Headers) -> None:
        """Answers with pieces of which nobody knows yet how many there are. Raises ClientGoneError."""
        if self.is_gone:
            raise ClientGoneError
        head = response_head(status, headers, CHUNKED if self._is_chunked else "", self._ending())
        self._is_stream = True
        self._connection.write(head)

    async def send(self, piece: bytes) -> None:
        """Returns when more can be sent. Raises ClientGoneError."""
        if self.is_gone:
            raise ClientGoneError
        if piece:
            self._connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
        if self._connection.is_full:
            await self._connection.drained()

    def end_stream(self) -> None:
        if self._is_chunked:
            self._connection.write(_LAST_CHUNK)
        self.is_answered = True

    # From here on it is the connection that calls.

    def add(self, piece: bytes) -> None:
        if not self._body:
            self._body = piece
        elif isinstance(self._body, bytes):
            # Not a list of pieces: those of tiny chunks take many times their own bytes.
            self._body = bytearray(self._body + piece)
        else:
            self._body += piece
        self._wake()

    def complete(self) -> None:
        self.is_complete = True
        self._wake()

    def lose(self) -> None:
        """The client has hung up."""
        self.is_gone = True
        self._wake()

    def _ask_for_more(self) -> None:
        if not self._body and self._is_chunked and self.headers.get("expect", "").lower() == "100-continue":
            self._connection.write(CONTINUE)
        self._connection.go_on_reading()

    async def _more(self) -> None:
        if not self.is_gone:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.is_gone:
            raise ClientGoneError

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ending(self) -> str:
        """What the head says of the connection: that it ends, where the rest of a body is not waited for too."""
        self.is_last = self.is_last or not self.is_complete or self._connection.is_draining
        return CLOSE if self.is_last else ""
