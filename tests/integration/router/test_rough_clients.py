"""Clients that send too much, too slowly, or no HTTP: a clear answer, one record, and nothing left behind."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body

CHAT = "/v1/chat/completions"
MIB = 2**20


@pytest.fixture
async def own_router(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    """A router that nobody else calls, impatient with bodies."""
    async with start_router(tmp_path_factory.mktemp("bad_input"), TOLLGATE_ROUTER_BODY_SECONDS="1") as router:
        yield router


class Connection:
    """A client that writes its HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, router: Router) -> "Connection":
        host, _, port = router.url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, key: str, headers: Mapping[str, str]) -> None:
        lines = [f"POST {CHAT} HTTP/1.1", "host: router", f"authorization: Bearer {key}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def answer(self, seconds: float = 15) -> tuple[int, bytes]:
        """Status and everything that follows; 0 when the connection was closed without a word."""
        async with asyncio.timeout(seconds):
            received = await self._reader.read(65_536)
        match = re.match(rb"HTTP/1.1 (\d+)", received)
        return (int(match[1]) if match else 0), received

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def metric(router: Router, name: str) -> float:
    answer = await router.client.get(router.metrics_url).build().send()
    return next(float(line.split()[1]) for line in (await answer.text()).splitlines() if line.startswith(f"{name} "))


def worker_of(router: Router) -> Path:
    (worker,) = Path(f"/proc/{router.process.pid}/task/{router.process.pid}/children").read_text().split()
    return Path("/proc") / worker


def memory_mib(router: Router) -> int:
    return int((worker_of(router) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB


async def body_arrives(router: Router, mib: int) -> None:
    """Returns when the router needs as much memory."""
    for _ in range(500):
        if memory_mib(router) >= mib:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the body did not arrive")


async def assert_nothing_is_left(router: Router) -> None:
    """All tasks, calls and sockets of the worker are gone."""
    left = [1.0]
    for _ in range(200):
        left = [await metric(router, name) for name in ("tollgate_router_running", "tollgate_spool_open_calls")]
        if not any(left):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"running, open: {left}")


async def test_a_body_of_100_mib_is_refused_before_it_is_read(own_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    connection = await Connection.open(own_router)
    await connection.head(key, {"content-length": str(100 * MIB)})
    status, received = await connection.answer()
    await connection.close()
    (record,) = await ledger.records_of(key)

    assert (status, b'"code":"too_large"' in received) == (413, True)
    assert (record.status, record.error_type) == (413, "too_large")
    await assert_nothing_is_left(own_router)


async def test_a_body_of_100_mib_that_does_not_say_so_is_refused_at_the_limit(
    own_router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    before = memory_mib(own_router)
    connection = await Connection.open(own_router)
    await connection.head(key, {"transfer-encoding": "chunked"})
    with suppress(ConnectionError):
        for _ in range(100):
            await connection.send(b"100000\r\n" + b"x" * MIB + b"\r\n")
    (record,) = await ledger.records_of(key)
    await connection.close()

    assert record.status == 413
    assert memory_mib(own_router) - before < 64
    await assert_nothing_is_left(own_router)


async def test_bodies_that_together_take_too_much_are_refused_until_others_are_gone(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_ROUTER_BODIES_MIB="16") as router:
        key = ledger.grant()
        before = memory_mib(router)
        first = await Connection.open(router)
        await first.head(key, {"content-length": str(15 * MIB)})
        await first.send(b"x" * 14 * MIB)
        await body_arrives(router, before + 13)
        second = await Connection.open(router)
        await second.head(key, {"transfer-encoding": "chunked"})
        with suppress(ConnectionError):
            await second.send(b"400000\r\n" + b"x" * 4 * MIB)
        refused = await second.answer()
        await first.close()
        await second.close()
        await assert_nothing_is_left(router)

        answer = await router.chat(key, "x" * 4 * MIB)

    assert refused[0] == 503
    assert b"The bodies of running calls" in refused[1] and b"retry-after" in refused[1].lower()
    assert answer.status == 200


async def test_a_body_that_comes_too_slowly_is_a_400(own_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    connection = await Connection.open(own_router)
    await connection.head(key, {"content-length": "1000"})
    await connection.send(b'{"model":')
    status, received = await connection.answer()
    await connection.close()
    (record,) = await ledger.records_of(key)

    assert (status, b"did not arrive within 1 seconds" in received) == (400, True)
    assert record.status == 400
    await assert_nothing_is_left(own_router)


async def test_clients_that_never_finish_their_headers_are_hung_up_on(own_router: Router, ledger: FakeLedger) -> None:
    slow = [await Connection.open(own_router) for _ in range(50)]
    for connection in slow:
        await connection.send(f"POST {CHAT} HTTP/1.1\r\nhost: router\r\nx-slow: ".encode())
    others = await own_router.chat(ledger.grant())
    statuses = {(await connection.answer(seconds=20))[0] for connection in slow}
    for connection in slow:
        await connection.close()

    assert others.status == 200
    assert statuses <= {0, 408}


async def test_a_client_that_hangs_up_in_mid_body_leaves_nothing_behind(own_router: Router, ledger: FakeLedger) -> None:
    for _ in range(20):
        connection = await Connection.open(own_router)
        await connection.head(ledger.grant(), {"content-length": "1000"})
        await connection.send(b'{"model":')
        await connection.close()

    await assert_nothing_is_left(own_router)
    assert (await own_router.chat(ledger.grant())).status == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"model": "gpt-4o", "messages": [{}]' + b"}" * 3, id="braces"),
        pytest.param(b"\x00" * 1000, id="zeros"),
        pytest.param(b'"just text"', id="a string"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(orjson.dumps({"model": "", "messages": [{}]}), id="empty model"),
        pytest.param(orjson.dumps({"model": "x" * 257, "messages": [{}]}), id="long model"),
        pytest.param(orjson.dumps({"model": "gpt-4o", "messages": {}}), id="messages of another kind"),
        pytest.param(orjson.dumps({"model": "gpt-4o", "messages": [1], "stream": "yes"}), id="stream of another kind"),
        pytest.param(orjson.dumps({"model": "gpt-4o", "messages": [1], "stream": 1}), id="stream as a number"),
        pytest.param(
            orjson.dumps({"model": "gpt-4o", "messages": [1], "stream": True, "stream_options": []}),
            id="stream options of another kind",
        ),
        pytest.param(orjson.dumps({"model": "gpt-4o", "messages": [1], "project_id": "a/b"}), id="project"),
    ],
)
async def test_a_body_that_makes_no_sense_is_a_400_with_one_record(
    router: Router, ledger: FakeLedger, body: bytes
) -> None:
    key = ledger.grant()
    answer = await router.send("POST", CHAT, body, key)
    records = [await ledger.record(answer.request_id)]

    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
    assert await ledger.records_of(key) == records
    assert records[0].status == 400


async def test_text_that_no_utf_8_can_hold_reaches_nobody(router: Router, ledger: FakeLedger) -> None:
    body = chat_body("Hello").replace(b"Hello", b"\xed\xa0\x80")

    assert (await router.send("POST", CHAT, body, ledger.grant())).status == 400


async def test_strange_requests_beside_good_ones_do_not_harm_them(own_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()

    async def strange(data: bytes) -> None:
        connection = await Connection.open(own_router)
        await connection.send(data)
        with suppress(TimeoutError, ConnectionError):
            await connection.answer(seconds=1)
        await connection.close()

    noise = [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\r\n" * 100, os.urandom(1000)]
    strangers = asyncio.gather(*(strange(data) for data in noise))
    answers = await asyncio.gather(*(own_router.chat(key, stream=number % 2 == 0) for number in range(20)))
    await strangers

    assert {answer.status for answer in answers} == {200}
    await assert_nothing_is_left(own_router)
