"""Which requests of clients are answered, and how. Over real sockets, on both event loops: ours is uvloop."""

import asyncio

import pytest

from services.router.server import Request
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, KIB, echo, post, serving


async def test_a_connection_takes_one_request_after_the_other(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            bodies = [
                (await client.exchange(post(f"content-length: {number}\r\n", b"x" * number))).body
                for number in range(5)
            ]
        assert bodies == [b"POST /one " + b"x" * number for number in range(5)]

    await run(work())


async def test_requests_that_come_together_are_answered_in_their_order(run: Run) -> None:
    running = 0

    async def handle(request: Request) -> None:
        nonlocal running
        running += 1
        assert running == 1
        # The first ones take the longest.
        await asyncio.sleep(0.01 / int(request.path[1:]))
        request.respond(200, [], request.path.encode() + await request.body(KIB))
        running -= 1

    async def work() -> None:
        requests = [post("content-length: 2\r\n", b"hi", f"POST /{number} HTTP/1.1") for number in range(1, 6)]
        async with serving(handle) as served, served.client() as client:
            await client.send(b"".join(requests))
            bodies = [(await client.answer()).body for _ in requests]
            assert (await client.exchange(post(first="GET /6 HTTP/1.1"))).body == b"/6"
        assert bodies == [b"/%dhi" % number for number in range(1, 6)]

    await run(work())


async def test_a_request_may_come_byte_by_byte(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            for byte in post("x: y\r\ncontent-length: 5\r\n", b"hello"):
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"POST /one hello"

    await run(work())


async def test_empty_lines_before_a_request_are_nothing(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            assert (await client.exchange(b"\r\n\r\n" + GET)).body == b"GET /one "
            assert (await client.exchange(b"\r\n" + GET)).body == b"GET /one "

    await run(work())


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/one?two=/three", "/one"),
        ("/?x", "/"),
        ("/a%20b", "/a%20b"),
        ("//one", "//one"),
        ("http://router/one?two", "/one"),
        ("http://router:8080/one", "/one"),
        ("http://router", "/"),
    ],
)
async def test_a_path_is_an_address_without_host_and_query(run: Run, address: str, path: str) -> None:
    async def work() -> None:
        async with serving(echo) as served:
            answer = await served.exchange(post(first=f"GET {address} HTTP/1.1"))
        assert answer.body == f"GET {path} ".encode()

    await run(work())


async def test_headers_of_one_name_become_a_list(run: Run) -> None:
    async def handle(request: Request) -> None:
        request.respond(200, [], request.headers["x-forwarded-for"].encode())

    async def work() -> None:
        async with serving(handle) as served:
            answer = await served.exchange(post("X-Forwarded-For: a\r\nother: b\r\nx-forwarded-FOR: c, d\r\n"))
        assert answer.body == b"a, c, d"

    await run(work())


async def test_space_around_a_value_is_no_part_of_it(run: Run) -> None:
    async def handle(request: Request) -> None:
        await request.body(KIB)
        request.respond(200, [], request.headers["x"].encode())

    async def work() -> None:
        async with serving(handle) as served:
            answer = await served.exchange(post("x: \t a b \t\r\ntransfer-encoding: chunked \r\n", b"0\r\n\r\n"))
        assert answer.body == b"a b"

    await run(work())


@pytest.mark.parametrize(
    ("more", "body"),
    [
        pytest.param("", b"", id="no body"),
        pytest.param("content-length: 5\r\n", b"hello", id="length"),
        pytest.param("transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", id="chunks"),
    ],
)
async def test_who_offers_another_protocol_is_answered_in_this_one(run: Run, more: str, body: bytes) -> None:
    # As Java's own client does with every first request on a connection.
    upgrade = post(f"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n{more}")
    expected = b"POST /one " + (b"hello" if body else b"")

    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            assert (await client.exchange(upgrade + body)).body == expected
            await client.send(upgrade)
            for byte in body:
                await asyncio.sleep(0.001)
                await client.send(bytes([byte]))
            assert (await client.answer()).body == expected
            await client.send((upgrade + body) * 3 + GET)
            assert [(await client.answer()).body for _ in range(4)] == [expected] * 3 + [b"GET /one "]

    await run(work())


async def test_who_offers_another_protocol_may_ask_for_an_end_too(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            answer = await client.exchange(
                post("connection: upgrade, close\r\nupgrade: h2c\r\ncontent-length: 1\r\n", b"x")
            )
            assert (answer.body, answer.headers["connection"]) == (b"POST /one x", "close")
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize("ending", ["connection: close\r\n", "Connection: Close\r\n"])
async def test_who_asks_for_it_is_hung_up_on_after_the_answer(run: Run, ending: str) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            answer = await client.exchange(post(ending))
            assert answer.headers["connection"] == "close"
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize("more", [GET, b"\0\0\0", b"\r\n\r\n"])
@pytest.mark.parametrize(
    "last", [GET[:-2] + b"connection: close\r\n\r\n", b"GET /one HTTP/1.0\r\n\r\n"], ids=["close", "HTTP/1.0"]
)
async def test_what_comes_after_the_last_request_is_not_looked_at(run: Run, last: bytes, more: bytes) -> None:
    async def handle(request: Request) -> None:
        await asyncio.sleep(0.02)
        await echo(request)

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET + last + more)
            await asyncio.sleep(0.005)
            await client.send(more)
            assert [(await client.answer()).body for _ in range(2)] == [b"GET /one "] * 2
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize("more", ["", "connection: keep-alive\r\n"])
@pytest.mark.parametrize("version", ["0.9", "1.0"])
async def test_the_oldest_http_gets_one_answer(run: Run, version: str, more: str) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            answer = await client.exchange(post(more, first=f"GET /one HTTP/{version}"))
            assert (answer.body, answer.headers["connection"]) == (b"GET /one ", "close")
            assert await client.rest() == b""

    await run(work())


async def test_head_gets_the_length_of_a_body_and_no_body(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client:
            await client.send(post(first="HEAD /one HTTP/1.1"))
            answer = await client.answer(has_body=False)
            assert answer.headers["content-length"] == str(len("HEAD /one "))
            assert (await client.exchange(GET)).body == b"GET /one "

    await run(work())
