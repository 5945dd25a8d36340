"""Ledgers that record, price, grant and end credit at the same time, each on connections of its own."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import psycopg

from services.common.errors import InvalidRequestError
from services.ledger.books.billing import NewGrant
from services.ledger.books.journal import Account
from tests.books_rig import UNPRICED_MODEL, BooksRig, a_books_rig
from tests.conftest import Database
from tests.usage_builders import COST_PICO, a_record, add_organization, books_of
from tollgate.ledger.v1.usage_pb2 import UsageRecord

WRITER_COUNT = 8
CALL_PICO = COST_PICO * 8 // 10


async def test_eight_ledgers_that_redeliver_overlapping_shuffled_batches_record_each_call_once(
    database: Database,
) -> None:
    """No deadlock reaches a caller: every delivery is answered, and every record recorded or a duplicate."""
    ids = [add_organization(database) for _ in range(3)]
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(a_books_rig(database)) for _ in range(WRITER_COUNT)]
        calls = [_a_call(ids[number % 3], rigs[0], number) for number in range(240)]
        await asyncio.gather(*(_redeliver(rig, calls, seed) for seed, rig in enumerate(rigs)))

        for organization_id in ids:
            books = books_of(database, organization_id)
            assert books.record_count == 80
            assert books.records_charged == 80 * CALL_PICO
            assert await rigs[0].differences(organization_id) == []


async def test_recording_pricing_granting_and_ending_at_once_leave_sound_books(database: Database) -> None:
    organization_id = add_organization(database)
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(a_books_rig(database)) for _ in range(4)]
        calls = [
            _a_call(organization_id, rigs[0], number, **({"model": UNPRICED_MODEL} if number % 3 == 0 else {}))
            for number in range(120)
        ]
        await asyncio.gather(
            *(_redeliver(rig, calls, seed) for seed, rig in enumerate(rigs)),
            *(_grant_and_end(rig, organization_id, number) for number, rig in enumerate(rigs)),
            *(_publish_again_and_again(rig) for rig in rigs),
        )
        for rig in rigs:
            await rig.publish()

        assert books_of(database, organization_id).records_charged == 120 * CALL_PICO
        assert await rigs[0].differences(organization_id) == []
        remaining = await rigs[0].remaining(organization_id)
        balances = await rigs[0].balances(organization_id)
        assert sum(remaining.values()) == sum(
            balances.get(account, 0) for account in (Account.PREPAID, Account.PROMOTIONAL)
        )
    with psycopg.connect(database.admin_url) as connection:
        query = "SELECT count(*) FROM ledger.usage_record WHERE organization_id = %s AND unpriced"
        assert connection.execute(query, (organization_id,)).fetchone() == (0,)


def _a_call(organization_id: str, rig: BooksRig, number: int, **fields: str) -> UsageRecord:
    at = rig.clock() - timedelta(minutes=11 * number)
    return a_record(organization_id, at=at, workflow=str(number % 4), **fields)


async def _redeliver(rig: BooksRig, calls: list[UsageRecord], seed: int) -> None:
    """All calls twice, in batches and an order of its own."""
    chance = random.Random(seed)
    twice = [*calls, *calls]
    chance.shuffle(twice)
    while twice:
        size = chance.randint(5, 60)
        batch, twice = twice[:size], twice[size:]
        await rig.record(batch)


async def _grant_and_end(rig: BooksRig, organization_id: str, number: int) -> None:
    for step in range(6):
        new = NewGrant(
            organization_id=organization_id,
            grant_id=f"{number}-{step}",
            account=Account.PROMOTIONAL if step % 2 else Account.PREPAID,
            amount_pico=5 * CALL_PICO,
            expire_time=rig.clock() + timedelta(seconds=1) if step % 2 else None,
        )
        # Where another ledger's clock is ahead, it may have ended before it is granted.
        with suppress(InvalidRequestError):
            await rig.billing.grant(new)
        rig.clock.step(0.7)
        await rig.ender.make_pass()


async def _publish_again_and_again(rig: BooksRig) -> None:
    for _ in range(4):
        await rig.publish()
