"""One result per idempotency key."""

import asyncio

import pytest

from services.common.errors import InvalidRequestError
from services.router.calls.idempotency import (
    ANSWER_BYTES_MAX,
    Claim,
    IdempotencyKeys,
    KeptAnswer,
    Name,
    fingerprint,
    require_key,
)
from services.router.errors import IdempotencyKeyReusedError

NAME = Name("key", "order-7")
FIRST, OTHER = fingerprint("/v1/embeddings", "web", b"{}"), fingerprint("/v1/embeddings", "web", b"{ }")


def answer(body: bytes = b"first") -> KeptAnswer:
    return KeptAnswer(200, (("content-type", "application/json"),), body, streamed=False)


async def claimed(keys: IdempotencyKeys, name: Name = NAME) -> Claim:
    claim = await keys.claim(name, FIRST)
    assert isinstance(claim, Claim)
    return claim


async def test_a_retry_gets_the_first_answer() -> None:
    keys = IdempotencyKeys()
    (await claimed(keys)).keep(answer())

    assert await keys.claim(NAME, FIRST) == answer()


async def test_a_retry_while_the_first_is_running_waits_for_its_answer() -> None:
    keys = IdempotencyKeys()
    claim = await claimed(keys)
    retries = [asyncio.create_task(keys.claim(NAME, FIRST)) for _ in range(3)]
    await asyncio.sleep(0)
    claim.keep(answer())

    assert await asyncio.gather(*retries) == [answer()] * 3


async def test_when_the_first_fails_exactly_one_of_those_that_wait_is_made() -> None:
    keys = IdempotencyKeys()
    claim = await claimed(keys)
    retries = [asyncio.create_task(keys.claim(NAME, FIRST)) for _ in range(3)]
    await asyncio.sleep(0)
    claim.give_up()
    done, waiting = await asyncio.wait(retries, timeout=0.05)

    assert len(done) == 1 and len(waiting) == 2
    second = done.pop().result()
    assert isinstance(second, Claim)
    second.keep(answer())
    assert await asyncio.gather(*waiting) == [answer()] * 2


@pytest.mark.parametrize("is_running", [True, False])
async def test_another_request_under_the_same_key_is_refused(is_running: bool) -> None:
    keys = IdempotencyKeys()
    claim = await claimed(keys)
    if not is_running:
        claim.keep(answer())

    with pytest.raises(IdempotencyKeyReusedError):
        await keys.claim(NAME, OTHER)


async def test_keys_of_different_api_keys_have_nothing_to_do_with_each_other() -> None:
    keys = IdempotencyKeys()
    (await claimed(keys)).keep(answer())

    assert isinstance(await keys.claim(Name("another key", "order-7"), OTHER), Claim)


async def test_an_answer_is_kept_for_an_hour() -> None:
    now = 0.0
    keys = IdempotencyKeys(clock=lambda: now)
    (await claimed(keys)).keep(answer())
    now = 3599.0
    before = await keys.claim(NAME, FIRST)
    now = 3600.0

    assert before == answer()
    assert isinstance(await keys.claim(NAME, OTHER), Claim)


async def test_where_there_is_too_much_the_oldest_goes_but_never_what_is_running() -> None:
    keys = IdempotencyKeys(bytes_max=3_000)
    running = await claimed(keys, Name("key", "running"))
    for number in range(5):
        (await claimed(keys, Name("key", str(number)))).keep(answer(bytes(500)))
    assert isinstance(await keys.claim(Name("key", "0"), FIRST), Claim)
    running.keep(answer())

    assert await keys.claim(Name("key", "running"), FIRST) == answer()
    assert await keys.claim(Name("key", "4"), FIRST) == answer(bytes(500))


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    keys = IdempotencyKeys()
    (await claimed(keys)).keep(answer(bytes(ANSWER_BYTES_MAX + 1)))

    assert isinstance(await keys.claim(NAME, FIRST), Claim)


@pytest.mark.parametrize("value", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(value: str) -> None:
    with pytest.raises(InvalidRequestError):
        require_key(value)
