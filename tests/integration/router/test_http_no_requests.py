"""What is no request, or could be read as another one by somebody else."""

import asyncio
import random
import tracemalloc
from contextlib import suppress

import pytest

from services.router.server import Request, connection
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, KIB, MIB, SECONDS_MAX, chunked, echo, post, serving, until


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post("content-length: 5\r\ncontent-length: 6\r\n", b"hello"), id="two lengths"),
        pytest.param(post("content-length: 5, 5\r\n", b"hello"), id="a list of lengths"),
        pytest.param(post("content-length: -5\r\n", b"hello"), id="negative length"),
        pytest.param(post("content-length: +5\r\n", b"hello"), id="signed length"),
        pytest.param(post("content-length: 0x5\r\n", b"hello"), id="hexadecimal length"),
        pytest.param(post("content-length:\r\n", b"hello"), id="no length"),
        pytest.param(post(f"content-length: {'9' * 30}\r\n", b"hello"), id="endless length"),
        pytest.param(post("content-length: 5\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"), id="length and chunks"),
        pytest.param(post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", b"0\r\n\r\n"), id="chunks and length"),
        pytest.param(post("transfer-encoding: chunked, gzip\r\n", b"0\r\n\r\n"), id="chunks inside"),
        pytest.param(post("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", b"0\r\n\r\n"), id="two encodings"),
        pytest.param(post("transfer-encoding: gzip\r\n", b"0\r\n\r\n"), id="no chunks"),
        pytest.param(post("transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), id="packed chunks"),
        pytest.param(post("transfer-encoding: identity\r\n"), id="no encoding"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(post("host: router\r\n"), id="two hosts"),
        pytest.param(b"POST / HTTP/1.1\nhost: router\n\n", id="bare LF"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: router\ncontent-length: 5\r\n\r\nhello", id="bare LF after a header"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: router\rcontent-length: 5\r\n\r\nhello", id="bare CR"),
        pytest.param(post("content-length : 5\r\n", b"hello"), id="space before the colon"),
        pytest.param(post("x: y\r\n z\r\n"), id="folded header"),
        pytest.param(b"POST / HTTP/1.1\r\n host: router\r\n\r\n", id="space before the first header"),
        pytest.param(post("x: a\0b\r\n"), id="zero byte"),
        pytest.param(post(": x\r\n"), id="no name"),
        pytest.param(post(first="POST / HTTP/9.9"), id="version"),
        pytest.param(post(first="PRI * HTTP/2.0"), id="HTTP/2"),
        pytest.param(post(first="CONNECT router:443 HTTP/1.1"), id="proxy"),
        pytest.param(post(first="GET one HTTP/1.1"), id="relative path"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", id="TLS"),
    ],
)
async def test_what_is_no_request_is_refused_and_nothing_after_it_is_read(run: Run, data: bytes) -> None:
    async def never(request: Request) -> None:
        raise AssertionError(request.path)

    async def work() -> None:
        async with serving(never) as served, served.client() as client:
            await client.send(data + GET)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"5\nhello\r\n0\r\n\r\n", id="bare LF"),
        pytest.param(b"5\r\nhello0\r\n\r\n", id="longer than it says"),
        pytest.param(b"-5\r\nhello\r\n0\r\n\r\n", id="negative"),
        pytest.param(b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n", id="endless"),
        pytest.param(b"5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n", id="length behind it"),
    ],
)
async def test_chunks_that_make_no_sense_end_the_connection(run: Run, body: bytes) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(post("transfer-encoding: chunked\r\n", body) + GET)
            assert await client.rest() == b""

    await run(work())


async def test_a_head_that_is_too_large_is_a_431(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(b"GET / HTTP/1.1\r\nx: ")
            for _ in range(20):
                await client.send(b"y" * 4 * KIB)
                await asyncio.sleep(0.001)
            assert (await client.answer()).status == 431
            assert await client.rest() == b""
            large = f"x: {'y' * 60 * KIB}\r\n"
            assert (await served.exchange(post(large))).status == 200

    await run(work())


async def test_a_head_is_not_taken_for_larger_by_what_came_before_it(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            before = post(f"content-length: {100 * KIB}\r\n", b"x" * 100 * KIB)
            for _ in range(3):
                await client.send(before + GET[:20])
                assert (await client.answer()).status == 200
                assert (await client.exchange(GET[20:])).status == 200

    await run(work())


async def test_too_many_headers_of_one_name_are_a_400(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served:
            many = connection.REPEATED_HEADERS_MAX + 1
            assert (await served.exchange(post("x: y\r\n" * many))).status == 200
            assert (await served.exchange(post("x: y\r\n" * (many + 1)))).status == 400

    await run(work())


async def test_who_sends_requests_without_end_is_hung_up_on(run: Run) -> None:
    async def handle(request: Request) -> None:
        await asyncio.sleep(SECONDS_MAX)

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET * (connection.WAITING_MAX + 2))
            assert await client.rest() == b""

    await run(work())


async def test_trailers_without_end_are_not_kept(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(chunked(b"hello").removesuffix(b"\r\n") + b"x: ")
            with suppress(ConnectionError):
                for _ in range(64):
                    await client.send(b"y" * 64 * KIB)
                    await asyncio.sleep(0)
            assert await client.rest() == b""
            await served.wait_until_alone()

    await run(work())


async def test_tiny_chunks_take_no_more_memory_than_large_ones(run: Run) -> None:
    sizes: list[int] = []

    async def handle(request: Request) -> None:
        tracemalloc.start()
        try:
            body = await request.body(MIB)
            sizes.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        request.respond(200, [], b"%d" % len(body))

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(post("transfer-encoding: chunked\r\n"))
            await until(lambda: served.server._tasks)
            await asyncio.sleep(0)
            answer = await client.exchange(b"2\r\nhi\r\n" * (MIB // 16) + b"0\r\n\r\n")
            assert answer.body == b"%d" % (MIB // 8)
        # With what the client keeps.
        assert sizes[0] < 2 * MIB

    await run(work())


async def test_noise_leaves_nothing_behind(run: Run) -> None:
    chance = random.Random(7)
    good = [GET, chunked(b"hello", b"x" * 100), post("content-length: 5\r\n", b"hello"), post("x: y\r\n" * 5)]

    def noise() -> bytes:
        data = bytearray(b"".join(chance.choices(good, k=3)))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return chance.randbytes(200) if chance.random() < 0.1 else bytes(data[: chance.randrange(len(data))])

    async def work() -> None:
        async with serving(echo) as served:

            async def strange() -> None:
                client = await served.open()
                await client.send(noise())
                await asyncio.sleep(chance.random() * 0.01)
                if chance.random() < 0.5:
                    client.reset()
                else:
                    await client.close()

            for _ in range(10):
                await asyncio.gather(*(strange() for _ in range(20)))
            assert (await served.exchange(GET)).body == b"GET /one "
            await served.wait_until_alone()

    await run(work())
