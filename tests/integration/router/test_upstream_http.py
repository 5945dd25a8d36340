"""The HTTP that we speak with providers, over real sockets, on both event loops: ours in production is uvloop."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from development.addresses import free_address
from services.router.formats.exchange import UpstreamCall
from services.router.upstream import Upstream, UpstreamAnswer
from tests.integration.router.conftest import Run
from tests.integration.router.raw_provider import (
    CALL,
    CLOSE,
    PAUSE,
    RawProvider,
    ask,
    failure_of,
    raw_provider,
    upstream_at,
    whole,
)

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

pytestmark = pytest.mark.usefixtures("no_proxies")


@asynccontextmanager
async def calling(directory: Path, *answers: list[bytes]) -> AsyncIterator[tuple[RawProvider, Upstream]]:
    async with raw_provider(*answers) as provider:
        upstream = upstream_at(directory, f"http://127.0.0.1:{provider.port}/v1")
        yield provider, upstream
        upstream.close()


async def chunks_of(answer: UpstreamAnswer) -> list[bytes]:
    chunks = []
    while (chunk := await answer.read_chunk()) is not None:
        chunks.append(chunk)
    answer.close()
    return chunks


async def test_a_call_goes_out_with_key_headers_and_body(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [whole(b"{}")]) as (provider, upstream):
            call = UpstreamCall(path="/x?y=1", upstream_model="gpt-4o", body=b"{1}", headers={"anthropic-beta": "b"})
            assert await ask(upstream, call) == b"{}"
        head, _, body = provider.requests[0].partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first == "POST /v1/x?y=1 HTTP/1.1"
        assert dict(line.split(": ") for line in lines) == {
            "host": f"127.0.0.1:{provider.port}",
            "user-agent": "tollgate",
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "x-team": "tollgate",
            "anthropic-beta": "b",
            "authorization": "Bearer sk-1",
            "content-length": "3",
        }
        assert body == b"{1}"

    await run(work())


async def test_a_connection_carries_one_call_after_the_other(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        chunked = [CHUNKED, b"5\r\nhello\r\n", PAUSE, b"0\r\n\r\n"]
        async with calling(tmp_path, [whole(b"one")], chunked, [whole(b"three")]) as (provider, upstream):
            assert [await ask(upstream) for _ in range(3)] == [b"one", b"hello", b"three"]
        assert provider.connection_count == 1

    await run(work())


async def test_calls_at_the_same_time_have_connections_of_their_own(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [PAUSE, whole(b"one")]) as (provider, upstream):
            await asyncio.gather(*(ask(upstream) for _ in range(5)))
            await ask(upstream)
        assert provider.connection_count == 5

    await run(work())


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([whole(b"one", b"connection: close")], id="that says so"),
        pytest.param([whole(b"one"), CLOSE], id="that is closed"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\none", CLOSE], id="that ends the answer"),
        pytest.param([whole(b"one"), PAUSE, whole(b"nobody asked")], id="that says more than it was asked"),
    ],
)
async def test_a_connection_that_cannot_go_on_is_not_used_again(run: Run, tmp_path: Path, first: list[bytes]) -> None:
    async def work() -> None:
        async with calling(tmp_path, first, [whole(b"two")]) as (provider, upstream):
            assert await ask(upstream) == b"one"
            await asyncio.sleep(0.15)
            assert await ask(upstream) == b"two"
        assert provider.connection_count == 2

    await run(work())


async def test_an_answer_that_is_not_read_to_its_end_cuts_its_connection(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [CHUNKED, b"5\r\nhello\r\n"], [whole(b"two")]) as (provider, upstream):
            answer = await upstream.send(CALL, "sk-1")
            assert await answer.read_chunk() == b"hello"
            answer.close()
            assert await ask(upstream) == b"two"
        assert provider.connection_count == 2

    await run(work())


async def test_chunks_may_be_cut_anywhere(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        body = b"4;ext=1\r\ndata\r\nB\r\n: \xc3\xa9 is cut\r\n0\r\ntrailer: x\r\n\r\n"
        pieces = [bytes([byte]) for byte in CHUNKED + body]
        async with calling(tmp_path, pieces) as (_, upstream):
            answer = await upstream.send(CALL, "sk-1")
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert b"".join(await chunks_of(answer)) == b"data: \xc3\xa9 is cut"

    await run(work())


async def test_a_chunk_is_there_as_soon_as_it_has_come(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        pieces = [CHUNKED, b"3\r\none\r\n", PAUSE, b"3\r\ntwo\r\n", PAUSE, b"0\r\n\r\n"]
        async with calling(tmp_path, pieces) as (_, upstream):
            assert await chunks_of(await upstream.send(CALL, "sk-1")) == [b"one", b"two"]

    await run(work())


async def test_a_notice_before_the_answer_is_passed_over(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        notice = b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n"
        async with calling(tmp_path, [notice, PAUSE, whole(b"one")]) as (_, upstream):
            answer = await upstream.send(CALL, "sk-1")
            assert (answer.status, answer.retry_after_seconds) == (200, None)
            assert await answer.read_whole() == b"one"

    await run(work())


@pytest.mark.parametrize(
    ("pieces", "failure"),
    [
        pytest.param([CLOSE], ("broken_stream", 0), id="nothing"),
        pytest.param([b"HTTP/1.1 200 O", CLOSE], ("broken_stream", 0), id="half a head"),
        pytest.param([b"SSH-2.0-OpenSSH_9.6\r\n"], ("bad_answer", 0), id="another protocol"),
        pytest.param([b"HTTP/1.1 101 X\r\nupgrade: h\r\nconnection: upgrade\r\n\r\n"], ("bad_answer", 0), id="101"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000], ("bad_answer", 0), id="a header without end"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", CLOSE], ("broken_stream", 200), id="half"),
        pytest.param([CHUNKED, b"5\r\nhel", CLOSE], ("broken_stream", 200), id="half a chunk"),
        pytest.param([CHUNKED, b"zz\r\n"], ("bad_answer", 200), id="a chunk of no length"),
        pytest.param([whole(b"\x1f\x8b", b"content-encoding: gzip")], ("bad_answer", 200), id="compressed"),
        pytest.param([], ("timeout", 0), id="silence"),
        pytest.param([CHUNKED, b"5\r\nhello\r\n"], ("timeout", 200), id="silence in mid-answer"),
        pytest.param([CHUNKED, *[b"1\r\nx\r\n", PAUSE] * 60], ("timeout", 200), id="bit by bit, for too long"),
    ],
)
async def test_a_provider_that_goes_wrong_is_told_by_what_it_did(
    run: Run, tmp_path: Path, pieces: list[bytes], failure: tuple[str, int]
) -> None:
    async def work() -> None:
        async with calling(tmp_path, pieces, [whole(b"fine")]) as (_, upstream):
            assert await failure_of(ask(upstream)) == failure
            assert await ask(upstream) == b"fine"

    await run(work())


async def test_each_call_on_a_kept_connection_has_a_silence_of_its_own(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [whole(b"one")], []) as (provider, upstream):
            await ask(upstream)
            await asyncio.sleep(0.6)
            start = time.monotonic()
            assert await failure_of(ask(upstream)) == ("timeout", 0)
            # Neither what is left of the first call's, nor that and another.
            assert 0.95 < time.monotonic() - start < 1.5
        assert provider.connection_count == 1

    await run(work())


async def test_what_came_before_a_break_can_be_read(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [CHUNKED + b"5\r\nhello\r\n", CLOSE]) as (_, upstream):
            answer = await upstream.send(CALL, "sk-1")
            await asyncio.sleep(0.1)
            assert await answer.read_chunk() == b"hello"
            assert await failure_of(answer.read_chunk()) == ("broken_stream", 200)
            answer.close()

    await run(work())


async def test_an_answer_without_a_length_that_is_cut_by_its_time_limit_is_not_whole(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with calling(tmp_path, [b"HTTP/1.1 200 OK\r\n\r\nhello"]) as (_, upstream):
            answer = await upstream.send(CALL, "sk-1")
            await asyncio.sleep(2.3)
            assert await answer.read_chunk() == b"hello"
            assert await failure_of(answer.read_chunk()) == ("timeout", 200)
            answer.close()

    await run(work())


async def test_who_reads_slowly_makes_the_provider_wait_and_gets_everything(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        piece, count = b"x" * 100_000, 400
        body = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count), *[piece] * count]
        async with calling(tmp_path, body) as (provider, upstream):
            answer = await upstream.send(CALL, "sk-1")
            # Longer than a silence of the provider may take, which this is not.
            await asyncio.sleep(1.2)
            assert provider.sent_bytes < len(piece) * count // 2
            assert sum(map(len, await chunks_of(answer))) == len(piece) * count

    await run(work())


async def test_nobody_listens(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        upstream = upstream_at(tmp_path, f"http://{free_address()}/v1")
        assert await failure_of(ask(upstream)) == ("connect_error", 0)

    await run(work())


async def test_a_key_or_header_that_is_more_than_one_line_is_not_sent(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        call = UpstreamCall(path="/x", upstream_model="m", body=b"", headers={"anthropic-beta": "b\r\nx: y"})
        async with calling(tmp_path, [whole(b"{}")]) as (provider, upstream):
            assert await failure_of(ask(upstream, key="sk-1\r\nx: y")) == ("refused_key", 401)
            assert await failure_of(ask(upstream, call)) == ("refused_key", 401)
            assert await failure_of(ask(upstream, key="schlüssel")) == ("refused_key", 401)
        assert provider.connection_count == 0

    await run(work())
