"""A server of a test's own, and clients that write their HTTP by hand."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from development.addresses import free_address
from services.router.server import HttpServer, Request
from services.router.server.connection import Handle

BODY_BYTES_MAX = 1024 * 1024
# Enough for everything that a test waits for.
SECONDS_MAX = 5.0
# For SO_LINGER: hang up as a process does that dies.
RESET = struct.pack("ii", 1, 0)

GET = b"GET /one HTTP/1.1\r\nhost: router\r\n\r\n"
KIB = 1024
MIB = 1024 * 1024


def post(headers: str = "", body: bytes = b"", first: str = "POST /one HTTP/1.1") -> bytes:
    """With these headers, each with its line's end."""
    return f"{first}\r\nhost: router\r\n{headers}\r\n".encode() + body


def chunked(*chunks: bytes, trailers: str = "") -> bytes:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post("transfer-encoding: chunked\r\n", pieces + f"0\r\n{trailers}\r\n".encode())


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> tuple[int, Mapping[str, str]]:
        """Status and headers of what comes next."""
        async with asyncio.timeout(SECONDS_MAX):
            received = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = received.decode().removesuffix("\r\n\r\n").split("\r\n")
        return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines)

    async def answer(self, *, has_body: bool = True) -> Answer:
        """One, to its end."""
        status, headers = await self.head()
        async with asyncio.timeout(SECONDS_MAX):
            if not has_body:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self._chunks()])
            elif "content-length" in headers:
                body = await self._reader.readexactly(int(headers["content-length"]))
            else:
                body = await self._reader.read()
        return Answer(status, headers, body)

    async def rest(self) -> bytes:
        """Everything until the server hangs up, which it has to."""
        received = bytearray()
        async with asyncio.timeout(SECONDS_MAX):
            with suppress(ConnectionError):
                while piece := await self._reader.read(65_536):
                    received += piece
        return bytes(received)

    async def exchange(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    def reset(self) -> None:
        """Hangs up as a process does that dies."""
        if self._writer.is_closing():
            return  # the server was first
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            assert await self._reader.readexactly(2) == b"\r\n"
        assert await self._reader.readexactly(2) == b"\r\n"


@dataclass(slots=True)
class Serving:
    """A running server."""

    server: HttpServer
    address: str
    # What the event loop was told of that nobody took care of.
    problems: list[Mapping[str, Any]] = field(default_factory=list)

    async def open(self) -> Client:
        host, _, port = self.address.partition(":")
        return Client(*await asyncio.open_connection(host, int(port)))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = await self.open()
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def client_that_takes_nothing(self) -> AsyncIterator[socket.socket]:
        """With little room for what comes; non-blocking."""
        host, _, port = self.address.partition(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
            yield client

    async def exchange(self, data: bytes) -> Answer:
        """On a connection of its own."""
        async with self.client() as client:
            return await client.exchange(data)

    async def wait_until_alone(self) -> None:
        """No connection and no task of the server is left."""
        await until(lambda: not self.server._connections and not self.server._tasks)


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[Serving]:
    """Fails when anything is left behind at the end, or went wrong where nobody looks."""
    server, address = HttpServer(handle), free_address()
    await server.start(address, reuse_port=False)
    one = Serving(server, address)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: one.problems.append(context))
    yield one
    server.cut_off()
    await server.wait_for_running()
    await server.stop(SECONDS_MAX)
    await one.wait_until_alone()
    assert one.problems == []


async def until(holds: Callable[[], object]) -> None:
    """Looks again and again: what it waits for is inside of the server, which tells nobody."""
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110 there is no event
            await asyncio.sleep(0.002)


async def echo(request: Request) -> None:
    """Says what it was asked for."""
    body = await request.body(BODY_BYTES_MAX)
    request.respond(200, [], f"{request.method} {request.path} ".encode() + body)
