"""Clients that hang up."""

import asyncio
import gc
import socket
import weakref

import pytest

from services.router.errors import ClientGoneError
from services.router.server import Request
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, KIB, RESET, post, serving, until


async def test_who_hangs_up_in_mid_body_is_gone(run: Run) -> None:
    ends: list[type[BaseException]] = []

    async def handle(request: Request) -> None:
        try:
            await request.body(KIB)
        except BaseException as error:
            ends.append(type(error))
            raise

    async def work() -> None:
        async with serving(handle) as served:
            for hang_up in ("close", "reset"):
                client = await served.open()
                await client.send(post("content-length: 10\r\n", b"hello"))
                await until(lambda: served.server._tasks)
                if hang_up == "close":
                    await client.close()
                else:
                    client.reset()
                await served.wait_until_alone()
        assert ends == [ClientGoneError, ClientGoneError]

    await run(work())


async def test_half_a_body_does_not_wait_for_the_collector(run: Run) -> None:
    seen: list[weakref.ref[object]] = []

    async def handle(request: Request) -> None:
        seen.append(weakref.ref(request._connection))
        await request.body(KIB)

    async def work() -> None:
        async with serving(handle) as served:
            gc.disable()
            try:
                client = await served.open()
                await client.send(post("content-length: 10\r\n", b"hello"))
                await until(lambda: seen)
                await client.close()
                await until(lambda: seen[0]() is None)
            finally:
                gc.enable()

    await run(work())


async def test_who_hangs_up_in_mid_stream_is_gone(run: Run) -> None:
    ends: list[type[BaseException]] = []

    async def handle(request: Request) -> None:
        request.begin_stream(200, [])
        try:
            while True:
                await request.send(b"piece")
                await asyncio.sleep(0.001)
        except BaseException as error:
            ends.append(type(error))
            raise

    async def work() -> None:
        async with serving(handle) as served:
            for hang_up in ("close", "reset"):
                client = await served.open()
                await client.send(GET)
                await client.head()
                if hang_up == "close":
                    await client.close()
                else:
                    client.reset()
                await served.wait_until_alone()
        assert ends == [ClientGoneError, ClientGoneError]

    await run(work())


async def test_an_answer_to_nobody_harms_nobody(run: Run) -> None:
    may_go_on = asyncio.Event()

    async def handle(request: Request) -> None:
        await may_go_on.wait()
        request.respond(200, [], b"hello")
        if request.path == "/stream":
            with pytest.raises(ClientGoneError):
                request.begin_stream(200, [])
            with pytest.raises(ClientGoneError):
                await request.send(b"piece")

    async def work() -> None:
        async with serving(handle) as served:
            for path in ("one", "stream"):
                client = await served.open()
                await client.send(post(first=f"GET /{path} HTTP/1.1"))
                await until(lambda: served.server._tasks)
                client.reset()
                await until(lambda: not served.server._connections)
                may_go_on.set()
                await served.wait_until_alone()
                may_go_on.clear()

    await run(work())


async def test_who_hangs_up_between_the_answer_and_the_end_harms_nobody(run: Run) -> None:
    clients: list[socket.socket] = []

    async def handle(request: Request) -> None:
        request.respond(200, [], b"before the body")
        clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        clients[0].close()

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            clients.append(client)
            client.send(post("content-length: 10\r\n"))
            await until(lambda: client.fileno() < 0)
            await served.wait_until_alone()

    await run(work())
