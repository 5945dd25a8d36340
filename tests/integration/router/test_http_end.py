"""How a server of HTTP ends, and what it keeps out meanwhile."""

import asyncio
import gc

import pytest

from services.router.server import Request, server
from tests.integration.router.conftest import Run
from tests.integration.router.http_client import GET, MIB, SECONDS_MAX, echo, post, serving, until


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
