"""The bodies that clients send us: how much of one is read, and when."""

import asyncio

import pytest

from services.router.errors import BodyTooLargeError
from services.router.server import Request
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import KIB, MIB, chunked, echo, post, serving, until


async def test_a_body_may_come_in_chunks_with_trailers(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            request = chunked(b"he", b"l" * 2, b"o", trailers="x-sum: 1\r\nauthorization: other\r\n")
            assert (await client.exchange(request)).body == b"POST /one hello"
            assert (await client.exchange(chunked())).body == b"POST /one "

    await run(work())


async def test_trailers_are_no_headers(run: Run) -> None:
    async def handle(request: Request) -> None:
        await request.body(KIB)
        request.respond(200, [], ",".join(request.headers).encode())

    async def work() -> None:
        async with serving(handle) as served:
            answer = await served.exchange(chunked(b"x", trailers="authorization: other\r\n"))
        assert answer.body == b"host,transfer-encoding"

    await run(work())


async def test_who_waits_to_be_asked_for_a_body_is_asked_when_it_is_wanted(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(post("expect: 100-continue\r\ncontent-length: 5\r\n"))
            assert await client.head() == (100, {})
            assert (await client.exchange(b"hello")).body == b"POST /one hello"
            # Who does not wait is not asked.
            answer = await client.exchange(post("expect: 100-continue\r\ncontent-length: 5\r\n", b"hello"))
            assert (answer.status, answer.body) == (200, b"POST /one hello")

    await run(work())


async def test_nobody_is_asked_for_a_body_that_nobody_wants(run: Run) -> None:
    async def handle(request: Request) -> None:
        request.respond(401, [], b"who?")

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            answer = await client.exchange(post("expect: 100-continue\r\ncontent-length: 5\r\n"))
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert await client.rest() == b""

    await run(work())


async def test_the_oldest_http_is_not_asked_for_a_body(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(post("expect: 100-continue\r\ncontent-length: 5\r\n", first="POST /one HTTP/1.0"))
            await until(lambda: served.server._tasks)
            assert (await client.exchange(b"hello")).status == 200

    await run(work())


@pytest.mark.parametrize("head", [f"content-length: {100 * MIB}\r\n", "transfer-encoding: chunked\r\n"])
async def test_who_sends_too_much_reads_so_and_no_more_than_allowed_is_kept(run: Run, head: str) -> None:
    kept = []

    async def handle(request: Request) -> None:
        try:
            await request.body(MIB)
        except BodyTooLargeError:
            # Some more comes before anybody has been told.
            await asyncio.sleep(0.02)
            kept.append(request.unread_bytes)
            request.respond(413, [], b"too much")

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(post(head))

            async def send_on() -> None:
                for _ in range(32):
                    await client.send(b"%x\r\n" % (256 * KIB) + b"x" * 256 * KIB + b"\r\n")

            sending = asyncio.create_task(send_on())
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"], answer.body) == (413, "close", b"too much")
            await asyncio.gather(sending, return_exceptions=True)
        assert kept[0] < 2 * MIB

    await run(work())


async def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(run: Run) -> None:
    async def handle(request: Request) -> None:
        with pytest.raises(BodyTooLargeError):
            await request.body(10)
        request.respond(413, [], b"")

    async def work() -> None:
        async with serving(handle) as served:
            assert (await served.exchange(post("content-length: 11\r\n"))).status == 413

    await run(work())


async def test_a_body_that_nobody_asked_for_does_not_pile_up(run: Run) -> None:
    seen: list[Request] = []
    may_go_on = asyncio.Event()

    async def handle(request: Request) -> None:
        seen.append(request)
        await may_go_on.wait()
        request.respond(200, [], b"%d" % len(await request.body(16 * MIB)))

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            sending = asyncio.create_task(client.send(post(f"content-length: {16 * MIB}\r\n", b"x" * 16 * MIB)))
            await until(lambda: seen and seen[0].unread_bytes)
            await asyncio.sleep(0.05)
            assert not sending.done()
            assert seen[0].unread_bytes < MIB
            may_go_on.set()
            assert (await client.answer()).body == b"%d" % (16 * MIB)
            await sending

    await run(work())


async def test_a_body_that_was_whole_before_anybody_asked_does_not_stop_what_comes_after_it(run: Run) -> None:
    async def handle(request: Request) -> None:
        # Of which it often is all: the last packet is what makes it too much.
        await until(lambda: request.unread_bytes > 256 * KIB)
        request.respond(200, [], b"%d" % len(await request.body(MIB)))

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            size = 260 * KIB
            for _ in range(5):
                answer = await client.exchange(post(f"content-length: {size}\r\n", b"x" * size))
                assert answer.body == b"%d" % size

    await run(work())
