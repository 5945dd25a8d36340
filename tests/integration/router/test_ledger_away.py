"""Keys stop when they are revoked, are not asked about all the time, and go on while the ledger is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router


@pytest.fixture
async def absence(ledger: FakeLedger) -> AsyncIterator[None]:
    """Lets the ledger come back whatever the test does."""
    yield
    await ledger.stop()
    await ledger.start()


async def known_key(router: Router, ledger: FakeLedger) -> str:
    """A key that the router has asked about. A ledger that has just come back is not found at once."""
    key = ledger.grant()
    async with asyncio.timeout(10):
        while (await router.chat(key)).status != 200:  # noqa: ASYNC110 there is no event
            await asyncio.sleep(0.05)
    return key


# More than the one second after which an answer would be asked for again.
QUIET_SECONDS = 1.5
QUIET_TRIES = 10


async def assert_stops_within_a_second(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    assert (await router.chat(key)).status == 200
    ledger.revoke(key)
    revoked = last_let_in = time.monotonic()
    while True:
        begun = time.monotonic()
        if (await router.chat(key)).status != 200:
            break
        last_let_in = begun

    assert last_let_in - revoked < 1.0


async def test_a_revoked_key_stops_within_a_second_though_it_is_in_use(router: Router, ledger: FakeLedger) -> None:
    await assert_stops_within_a_second(router, ledger)


async def test_so_it_does_where_the_ledger_cannot_say_what_changes(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    ledger.tells_changes = False
    try:
        async with start_router(tmp_path) as router:
            await assert_stops_within_a_second(router, ledger)
    finally:
        ledger.tells_changes = True


async def test_a_key_in_use_is_not_asked_about_while_the_ledger_says_that_nothing_changes(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    # On a busy machine messages may come late, and then the router asks.
    for _ in range(QUIET_TRIES):
        await router.chat(key)
        asked, end = ledger.asked_about(key), time.monotonic() + QUIET_SECONDS
        while time.monotonic() < end:
            assert (await router.chat(key)).status == 200
        if ledger.asked_about(key) == asked:
            return
    raise AssertionError(f"asked about {ledger.asked_about(key)} times")


@pytest.mark.usefixtures("absence")
async def test_known_keys_go_on_while_the_ledger_is_away_and_their_records_wait(
    router: Router, ledger: FakeLedger
) -> None:
    key, unknown = await known_key(router, ledger), ledger.grant()
    await ledger.stop()
    await asyncio.sleep(1.1)
    answers = [await router.chat(key) for _ in range(5)]
    refused = await router.chat(unknown)
    await ledger.start()

    assert {answer.status for answer in answers} == {200}
    assert (refused.status, refused.json["error"]["type"]) == (503, "service_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    for answer in answers:
        await ledger.record(answer.request_id)


@pytest.mark.usefixtures("absence")
async def test_a_ledger_that_is_away_does_not_slow_down_known_keys(router: Router, ledger: FakeLedger) -> None:
    key = await known_key(router, ledger)
    await ledger.stop()
    await asyncio.sleep(1.1)
    start = time.monotonic()
    for _ in range(20):
        assert (await router.chat(key)).status == 200

    assert time.monotonic() - start < 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_service_token_that_the_ledger_refuses_is_our_fault_and_not_the_key_s(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path, path: str
) -> None:
    async with start_router(tmp_path, TOLLGATE_SERVICE_TOKEN="not-the-ledger-s") as router:
        answer = await router.send("POST", path, b"{}", ledger.grant())

    assert (answer.status, answer.json["error"]["type"]) == (503, "service_unavailable")
    assert answer.json.get("type") == ("error" if path == "/v1/messages" else None)
