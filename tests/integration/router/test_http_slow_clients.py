"""Clients that let us wait."""

import asyncio
import socket
import time

import pytest

from services.router.errors import ClientGoneError
from services.router.server import Request, connection, server
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, KIB, MIB, SECONDS_MAX, echo, post, serving, until


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for nobody."""
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "STALLED_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection, name, 0.05)
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET /one HT", GET[:-2], GET, GET + b"GET /two"])
async def test_who_sends_nothing_more_is_hung_up_on(run: Run, data: bytes) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(data)
            assert (b"GET /one " in await client.rest()) is data.startswith(GET)
            await served.wait_until_alone()

    await run(work())


@pytest.mark.usefixtures("impatient")
async def test_a_head_in_tiny_pieces_gets_no_more_time_than_one_in_one(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:

            async def send_slowly() -> None:
                for byte in b"GET / HTTP/1.1\r\nx: " + b"y" * 1000:
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0.01)

            sending = asyncio.create_task(send_slowly())
            async with asyncio.timeout(1):
                await client.rest()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    await run(work())


@pytest.mark.usefixtures("impatient")
async def test_an_answer_may_take_its_time(run: Run) -> None:
    async def handle(request: Request) -> None:
        await asyncio.sleep(0.15)
        request.respond(200, [], b"at last")

    async def work() -> None:
        async with serving(handle) as served:
            assert (await served.exchange(GET)).body == b"at last"

    await run(work())


@pytest.mark.usefixtures("impatient")
async def test_who_does_not_take_a_stream_is_cut_off(run: Run) -> None:
    gone = asyncio.Event()

    async def handle(request: Request) -> None:
        request.begin_stream(200, [])
        try:
            while True:
                await request.send(b"x" * 64 * KIB)
        except ClientGoneError:
            gone.set()
            raise

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            client.send(GET)
            async with asyncio.timeout(SECONDS_MAX):
                await gone.wait()
            await served.wait_until_alone()

    await run(work())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("data", [GET, GET + GET, GET + GET[:-2], post("connection: close\r\n")])
async def test_who_does_not_take_a_whole_answer_is_cut_off(run: Run, data: bytes) -> None:
    async def handle(request: Request) -> None:
        request.respond(200, [], b"x" * 16 * MIB)

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            client.send(data)
            await until(lambda: served.server._connections)
            await served.wait_until_alone()

    await run(work())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ending", ["", "connection: close\r\n"])
async def test_who_takes_a_large_answer_slowly_gets_all_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    # The kernel says what it has sent in steps of a MiB or two.
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.25)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.25)

    async def handle(request: Request) -> None:
        request.respond(200, [], b"x" * 16 * MIB)

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            client.send(post(ending))
            received, start = 0, time.monotonic()
            async with asyncio.timeout(SECONDS_MAX):
                while received < 16 * MIB:
                    piece = await asyncio.get_running_loop().sock_recv(client, 256 * KIB)
                    assert piece
                    received += len(piece)
                    # 30 MiB a second.
                    await asyncio.sleep(max(0.0, start + received / (30 * MIB) - time.monotonic()))

    await run(work())
