"""Answers to clients that come in pieces, or do not come whole."""

import asyncio

import pytest

from services.router.errors import ClientGoneError
from services.router.server import Request
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, KIB, MIB, SECONDS_MAX, post, serving, until


async def test_a_stream_is_sent_in_chunks_and_the_connection_goes_on(run: Run) -> None:
    async def handle(request: Request) -> None:
        request.begin_stream(200, [("content-type", "text/event-stream")])
        for piece in (b"one", b"", b"two"):
            await request.send(piece)
        request.end_stream()

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            for _ in range(2):
                answer = await client.exchange(GET)
                assert answer.body == b"onetwo"
                assert (answer.headers["transfer-encoding"], answer.headers["content-type"]) == (
                    "chunked",
                    "text/event-stream",
                )

    await run(work())


@pytest.mark.parametrize("version", ["0.9", "1.0"])
async def test_the_oldest_http_gets_streams_without_chunks(run: Run, version: str) -> None:
    async def handle(request: Request) -> None:
        request.begin_stream(200, [])
        await request.send(b"one")
        await request.send(b"two")
        request.end_stream()

    async def work() -> None:
        async with serving(handle) as served:
            answer = await served.exchange(post(first=f"GET /one HTTP/{version}"))
        assert answer.body == b"onetwo"
        assert "transfer-encoding" not in answer.headers

    await run(work())


async def test_a_stream_waits_for_its_reader(run: Run) -> None:
    sent = 0

    async def handle(request: Request) -> None:
        nonlocal sent
        request.begin_stream(200, [])
        for _ in range(512):
            await request.send(b"x" * 64 * KIB)
            sent += 1
        request.end_stream()

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            client.send(GET)
            await asyncio.sleep(0.1)
            stopped_at = sent
            await asyncio.sleep(0.05)
            assert 0 < stopped_at == sent < 512
            received = 0
            async with asyncio.timeout(SECONDS_MAX):
                while received < 512 * 64 * KIB:
                    received += len(await asyncio.get_running_loop().sock_recv(client, MIB))
            await until(lambda: sent == 512)

    await run(work())


@pytest.mark.parametrize("how", ["raises", "is cancelled", "returns"])
async def test_a_stream_that_was_not_ended_does_not_look_like_a_whole_one(run: Run, how: str) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def handle(request: Request) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        request.begin_stream(200, [])
        await request.send(b"piece")
        if how == "raises":
            raise ClientGoneError
        if how == "is cancelled":
            await asyncio.sleep(SECONDS_MAX)

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET)
            if how == "is cancelled":
                await client.head()
                tasks[0].cancel()
            assert b"0\r\n\r\n" not in await client.rest()

    await run(work())


async def test_no_second_answer_goes_out_in_the_middle_of_a_stream(run: Run) -> None:
    async def handle(request: Request) -> None:
        request.begin_stream(200, [])
        await request.send(b"piece")
        # As for whatever goes wrong.
        request.respond(503, [], b"a bug")

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET + GET)
            received = await client.rest()
            assert b"503" not in received
            assert b"0\r\n\r\n" not in received

    await run(work())


async def test_a_request_without_an_answer_ends_its_connection(run: Run) -> None:
    async def handle(request: Request) -> None:
        await request.body(KIB)

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET + GET)
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb", "\r\n"])
async def test_a_header_with_a_line_of_its_own_is_not_sent(run: Run, value: str) -> None:
    async def handle(request: Request) -> None:
        with pytest.raises(ValueError, match="end of a line"):
            request.respond(200, [("x", value)], b"")
        with pytest.raises(ValueError, match="end of a line"):
            request.begin_stream(200, [("x", "y"), (value, "z")])
        request.respond(500, [], b"")

    async def work() -> None:
        async with serving(handle) as served:
            answer = await served.exchange(GET)
        assert answer.status == 500
        assert set(answer.headers) == {"date", "content-length"}

    await run(work())
