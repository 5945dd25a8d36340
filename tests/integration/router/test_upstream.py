"""One provider's connections, to a real server that answers while our event loop looks elsewhere."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from services.router.formats.exchange import UpstreamCall
from services.router.routing.providers import Provider, read_providers
from services.router.upstream import Upstream, client_context

PROVIDER = """
[[providers]]
name = "late"
format = "openai"
base_url = "http://127.0.0.1:{port}"
api_key_variable = "API_KEY"
models = ["gpt-4o"]
"""
PAUSE_SECONDS = 0.003
# A cancellation that meets an answer half-way used to be lost every other time.
TIMES = 30


def answer_late(connection: socket.socket) -> None:
    """Bit by bit: five bytes that were announced, or chunks for as long as somebody reads."""
    with connection, suppress(OSError):
        is_whole = b"/whole" in connection.recv(65536)
        time.sleep(PAUSE_SECONDS)
        framing = b"content-length: 5" if is_whole else b"transfer-encoding: chunked"
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + framing + b"\r\n\r\n")
        time.sleep(PAUSE_SECONDS)
        if is_whole:
            connection.sendall(b"hello")
            return
        while True:
            connection.sendall(b"5\r\nhello\r\n")
            time.sleep(PAUSE_SECONDS)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer_late, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        file = tmp_path_factory.mktemp("late") / "providers.toml"
        file.write_text(PROVIDER.format(port=server.getsockname()[1]))
        yield read_providers(file, {"API_KEY": "simulated"})[0]


async def send(upstream: Upstream) -> None:
    call = UpstreamCall(path="/head", upstream_model="gpt-4o", body=b"{}")
    (await upstream.send(call, "simulated")).close()


async def read_chunks(upstream: Upstream) -> None:
    call = UpstreamCall(path="/chunks", upstream_model="gpt-4o", body=b"{}")
    answer = await upstream.send(call, "simulated")
    try:
        await answer.read_chunk()
        await answer.read_chunk()
    finally:
        answer.close()


async def read_whole(upstream: Upstream) -> None:
    call = UpstreamCall(path="/whole", upstream_model="gpt-4o", body=b"{}")
    answer = await upstream.send(call, "simulated")
    try:
        await answer.read_whole()
    finally:
        answer.close()


@pytest.mark.parametrize("use", [send, read_chunks, read_whole])
async def test_a_cancellation_that_meets_an_answer_half_way_is_not_lost(
    provider: Provider, use: Callable[[Upstream], Awaitable[None]]
) -> None:
    upstream = Upstream(provider, client_context())

    async def then_wait() -> None:
        await use(upstream)
        await asyncio.sleep(10)

    for number in range(TIMES):
        task = asyncio.create_task(then_wait())
        await asyncio.sleep(number % 5 * PAUSE_SECONDS / 2)
        # What is awaited arrives now, and nobody has looked when the cancellation comes.
        time.sleep(4 * PAUSE_SECONDS)  # noqa: ASYNC251 the loop is to be busy
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(1):
                await task
    upstream.close()
