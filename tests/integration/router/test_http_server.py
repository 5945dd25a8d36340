"""The HTTP that we speak with clients, over real sockets, on both event loops: ours in production is uvloop."""

import asyncio
import gc
import random
import socket
import time
import tracemalloc
import weakref
from contextlib import suppress

import pytest

from services.router.errors import BodyTooLargeError, ClientGoneError
from services.router.server import Request, connection, server
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import RESET, SECONDS_MAX, echo, serving, until

GET = b"GET /one HTTP/1.1\r\nhost: router\r\n\r\n"
KIB = 1024
MIB = 1024 * 1024


def post(headers: str = "", body: bytes = b"", first: str = "POST /one HTTP/1.1") -> bytes:
    """With these headers, each with its line's end."""
    return f"{first}\r\nhost: router\r\n{headers}\r\n".encode() + body


def chunked(*chunks: bytes, trailers: str = "") -> bytes:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post("transfer-encoding: chunked\r\n", pieces + f"0\r\n{trailers}\r\n".encode())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for nobody."""
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "STALLED_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection, name, 0.05)
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.01)


# Requests and their order.


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


# Bodies.


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


# What is no request, or could be read as another one by somebody else.


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


# Clients that let us wait.


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


# Clients that hang up.


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


# Streams.


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


# The end.


async def test_who_is_idle_is_hung_up_on_when_it_drains(run: Run) -> None:
    async def work() -> None:
        async with serving(echo) as served, served.client() as client, served.client() as silent:
            await client.exchange(GET)
            served.server.drain()
            assert await client.rest() == await silent.rest() == b""
            with pytest.raises(OSError):
                await served.open()

    await run(work())


async def test_what_has_been_answered_when_it_drains_is_sent_to_its_end(run: Run) -> None:
    answered = asyncio.Event()

    async def handle(request: Request) -> None:
        request.respond(200, [], b"x" * 16 * MIB)
        answered.set()

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET)
            await answered.wait()
            await served.server.wait_for_running()
            served.server.drain()
            assert len((await client.answer()).body) == 16 * MIB
            assert await client.rest() == b""

    await run(work())


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_what_runs_when_it_drains_is_answered_and_then_hung_up_on(run: Run, begins: str) -> None:
    started, may_go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> None:
        if begins == "before":
            request.begin_stream(200, [])
        started.set()
        await may_go_on.wait()
        if begins == "after":
            request.begin_stream(200, [])
        await request.send(b"piece")
        request.end_stream()

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET)
            await started.wait()
            served.server.drain()
            with pytest.raises(OSError):
                await served.open()
            may_go_on.set()
            await served.server.wait_for_running()
            answer = await client.answer()
            assert answer.body == b"piece"
            assert answer.headers.get("connection") == (None if begins == "before" else "close")
            assert await client.rest() == b""

    await run(work())


async def test_what_is_cut_off_is_cancelled(run: Run) -> None:
    started = asyncio.Event()
    ends: list[type[BaseException]] = []

    async def handle(request: Request) -> None:
        started.set()
        try:
            await asyncio.sleep(SECONDS_MAX)
        except BaseException as error:
            ends.append(type(error))
            raise

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET)
            await started.wait()
            served.server.drain()
            served.server.cut_off()
            await served.server.wait_for_running()
            assert await client.rest() == b""
        assert ends == [asyncio.CancelledError]

    await run(work())


async def test_what_is_cut_off_before_it_has_begun_is_over_too(run: Run) -> None:
    async def never(request: Request) -> None:
        raise AssertionError(request.path)

    async def work() -> None:
        async with serving(never) as served, served.client() as client:
            loop = asyncio.get_running_loop()

            def cut_off_at_once() -> None:
                if served.server._tasks:
                    served.server.cut_off()
                else:
                    loop.call_soon(cut_off_at_once)

            cut_off_at_once()
            await client.send(GET)
            assert await client.rest() == b""
            async with asyncio.timeout(SECONDS_MAX):
                await served.server.wait_for_running()

    await run(work())


async def test_a_handler_that_fails_is_logged_and_ends_its_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(request: Request) -> None:
        raise RuntimeError(f"no answer for {request.path}")

    async def work() -> None:
        async with serving(handle) as served, served.client() as client:
            await client.send(GET + GET)
            assert await client.rest() == b""
            await served.wait_until_alone()
            gc.collect()

    await run(work())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no answer for /one"


async def test_at_its_end_it_waits_for_what_is_being_sent_but_not_for_ever(run: Run) -> None:
    answered = asyncio.Event()

    async def handle(request: Request) -> None:
        request.respond(200, [], b"x" * 16 * MIB)
        answered.set()

    async def work() -> None:
        async with serving(handle) as served, served.client_that_takes_nothing() as client:
            client.send(post("connection: close\r\n"))
            await answered.wait()
            await served.server.stop(0.05)
            await served.wait_until_alone()

    await run(work())


async def test_a_connection_too_many_is_closed_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)

    async def work() -> None:
        async with serving(echo) as served, served.client() as one:
            async with served.client() as two:
                await one.exchange(GET)
                await two.exchange(GET)
                async with served.client() as three, served.client() as four:
                    assert await three.rest() == b""
                    await four.send(GET)
                    assert await four.rest() == b""
                assert (await one.exchange(GET)).status == 200
            await until(lambda: len(served.server._connections) == 1)
            assert (await served.exchange(GET)).status == 200

    await run(work())
