"""A provider that says exactly what it is told to, byte by byte, over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.router.formats.exchange import UpstreamCall
from services.router.routing.providers import Provider, read_providers
from services.router.upstream import Upstream, UpstreamError, client_context

FILE = """
[[providers]]
name = "raw"
format = "openai"
base_url = "{base_url}"
api_key_variable = "API_KEY"
connect_timeout_seconds = 1
idle_timeout_seconds = 1
total_timeout_seconds = 2
headers = {{ "x-team" = "tollgate" }}
models = ["gpt-4o"]
"""
# Stands in an answer for a wait of its length, and for the end of the connection.
PAUSE, CLOSE = b"<pause>", b"<close>"
PAUSE_SECONDS = 0.05
CALL = UpstreamCall(path="/chat/completions", upstream_model="gpt-4o", body=b'{"model":"gpt-4o"}')


def whole(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@dataclass(slots=True)
class RawProvider:
    """What it was sent, and by how many connections. Answers in turn with the bytes of `answers`, the last for ever."""

    answers: Sequence[Sequence[bytes]]
    port: int = 0
    connection_count: int = 0
    requests: list[bytes] = field(default_factory=list)
    sent_bytes: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.requests.append(await _read_request(reader))
                turn = min(len(self.requests), len(self.answers)) - 1
                for piece in self.answers[turn]:
                    if piece == CLOSE:
                        writer.close()
                        return
                    if piece == PAUSE:
                        await asyncio.sleep(PAUSE_SECONDS)
                        continue
                    writer.write(piece)
                    await writer.drain()
                    self.sent_bytes += len(piece)
        writer.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, length = head.partition(b"content-length: ")
    return head + await reader.readexactly(int(length.split(b"\r\n")[0] or 0))


@asynccontextmanager
async def raw_provider(*answers: Sequence[bytes], context: ssl.SSLContext | None = None) -> AsyncIterator[RawProvider]:
    provider = RawProvider(answers)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=context)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()


def configured(directory: Path, base_url: str) -> Provider:
    file = directory / "providers.toml"
    file.write_text(FILE.format(base_url=base_url))
    return read_providers(file, {"API_KEY": "simulated"})[0]


def upstream_at(directory: Path, base_url: str) -> Upstream:
    return Upstream(configured(directory, base_url), client_context())


async def ask(upstream: Upstream, call: UpstreamCall = CALL, key: str = "sk-1") -> bytes:
    answer = await upstream.send(call, key)
    try:
        return await answer.read_whole()
    finally:
        answer.close()


async def failure_of(work: Awaitable[object]) -> tuple[str, int]:
    with pytest.raises(UpstreamError) as raised:
        await work
    return raised.value.failure.error_type, raised.value.failure.status
