"""Whatever order things come in, the books are those of a plain model, and agree with themselves."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError
from services.ledger.books.billing import NewGrant, NewRefund
from services.ledger.books.journal import OWN, Account
from services.ledger.storage.books.refunds import RefundKind
from tests.books_model import PREPAID, PROMOTIONAL, BooksModel
from tests.books_rig import UNPRICED_MODEL, BooksRig, a_books_rig
from tests.conftest import Database
from tests.usage_builders import COST_PICO, a_record, add_organization
from tollgate.ledger.v1.usage_pb2 import UsageRecord

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
# A fifth off.
CALL_PICO = COST_PICO * 8 // 10
STORAGE_PICO = 12_000_000
# What a record of the pool may be: which model, whose key, and whether payloads are retained.
KINDS: list[dict[str, Any]] = [
    {},
    {"funding": 2},
    {"payload_retained": True},
    {"model": UNPRICED_MODEL},
    {"model": UNPRICED_MODEL, "payload_retained": True},
    {"model": UNPRICED_MODEL, "funding": 2},
    {"outcome": 2, "status": 502},
]
POOL_SIZE = 3 * len(KINDS)

Event = tuple[Any, ...]
CALLS = st.tuples(st.just("calls"), st.lists(st.integers(0, POOL_SIZE - 1), min_size=1, max_size=8))
AMOUNTS = st.sampled_from([1, CALL_PICO - 1, CALL_PICO, 3 * CALL_PICO, 10 * CALL_PICO])
ENDS = st.none() | st.integers(1, 4)
GRANTS = st.tuples(st.just("grant"), st.sampled_from([PREPAID, PROMOTIONAL]), AMOUNTS, ENDS)
REFUNDS = st.tuples(st.just("refund"), st.integers(0, 5), AMOUNTS)
CORRECTIONS = st.tuples(st.just("correct"), st.sampled_from([PREPAID, PROMOTIONAL]), AMOUNTS)
WAITS = st.tuples(st.just("wait"), st.integers(1, 3))
ENDINGS = st.tuples(st.just("end"))
PUBLISHING = st.tuples(st.just("publish"))
EVENTS = st.lists(
    st.one_of(CALLS, CALLS, GRANTS, GRANTS, REFUNDS, CORRECTIONS, WAITS, ENDINGS, PUBLISHING), min_size=1, max_size=14
)


class Play:
    """One organization to which things happen, and the model of it."""

    def __init__(self, rig: BooksRig, database: Database) -> None:
        self.rig = rig
        self.organization_id = add_organization(database)
        self.model = BooksModel()
        self._seen: set[int] = set()
        self._waiting: set[int] = set()
        self._published = False
        self._number = 0
        self._pool = [self._record(number) for number in range(POOL_SIZE)]
        rig.unpublish()

    def _record(self, number: int) -> UsageRecord:
        at = self.rig.clock() - timedelta(minutes=7 * number)
        return a_record(self.organization_id, at=at, workflow=str(number % 2), **KINDS[number % len(KINDS)])

    async def happens(self, event: Event) -> None:
        what, *values = event
        await getattr(self, f"_{what}")(*values)

    async def _calls(self, numbers: Sequence[int]) -> None:
        await self.rig.record([self._pool[number] for number in numbers])
        new = set(numbers) - self._seen
        self._seen |= new
        if not self._published:
            self._waiting |= {number for number in new if "model" in KINDS[number % len(KINDS)]}
        self._charge([_cost(number, self._published) for number in new])

    def _charge(self, costs: list[tuple[int, int]]) -> None:
        charged, list_price = (sum(amounts) for amounts in zip((0, 0), *costs, strict=True))
        if list_price:
            self.model.charge(charged, list_price, self.rig.clock())

    async def _grant(self, kind: int, amount: int, ends_in: int | None) -> None:
        self._number += 1
        ends = None if ends_in is None else self.rig.clock() + timedelta(seconds=ends_in)
        new = NewGrant(
            organization_id=self.organization_id,
            grant_id=f"grant-{self._number}",
            account=Account(kind),
            amount_pico=amount,
            expire_time=ends,
        )
        booked = await self.rig.billing.grant(new)
        assert await self.rig.billing.grant(new) == booked
        self.model.grant(new.grant_id, kind, amount, ends, self.rig.clock())

    async def _refund(self, grant_number: int, amount: int) -> None:
        prepaid = [credit.grant_id for credit in self.model.credits if credit.kind == PREPAID]
        prepaid = [grant_id for grant_id in prepaid if grant_id.startswith("grant")]
        if prepaid:
            grant_id = prepaid[grant_number % len(prepaid)]
            expected = self.model.refund(grant_id, amount, self.rig.clock())
            assert await self._gives_back(RefundKind.UNSPENT, amount, grant_id=grant_id) is expected

    async def _correct(self, kind: int, amount: int) -> None:
        refund_id = f"refund-{self._number + 1}"
        expected = self.model.correct(refund_id, kind, amount, self.rig.clock())
        assert await self._gives_back(RefundKind.CORRECTION, amount, account=Account(kind)) is expected

    async def _gives_back(
        self, kind: RefundKind, amount: int, *, grant_id: str | None = None, account: Account | None = None
    ) -> bool:
        self._number += 1
        new = NewRefund(
            organization_id=self.organization_id,
            refund_id=f"refund-{self._number}",
            kind=kind,
            amount_pico=amount,
            grant_id=grant_id,
            account=account,
            reason="as agreed",
        )
        with contextlib.suppress(InvalidRequestError):
            booked = await self.rig.billing.refund(new)
            assert await self.rig.billing.refund(new) == booked
            return True
        return False

    async def _wait(self, seconds: int) -> None:
        self.rig.clock.step(seconds)

    async def _end(self) -> None:
        await self.rig.ender.make_pass()

    async def _publish(self) -> None:
        # Other organizations of this database may have been waiting too.
        assert await self.rig.publish() >= len(self._waiting)
        self._published = True
        later = [(_cost(number, True), _cost(number, False)) for number in self._waiting]
        self._charge([(after[0] - before[0], after[1] - before[1]) for after, before in later])
        self._waiting.clear()

    async def agrees_with_the_model(self) -> None:
        self.model.end_credits(self.rig.clock())
        own = {account: amount for account, amount in self.model.balances().items() if account in OWN}
        found = await self.rig.balances(self.organization_id)
        assert {account: amount for account, amount in found.items() if account in OWN} == own
        assert await self.rig.remaining(self.organization_id) == self.model.remaining()


def _cost(number: int, published: bool) -> tuple[int, int]:
    """What credits pay for a record of the pool, and the same before discounts."""
    kind = KINDS[number % len(KINDS)]
    storage = STORAGE_PICO if kind.get("payload_retained") else 0
    pays = kind.get("funding") != 2 and kind.get("outcome") != 2 and (published or "model" not in kind)
    return (CALL_PICO + storage, COST_PICO + storage) if pays else (storage, storage)


@FEW
@given(events=EVENTS)
def test_the_books_are_those_of_a_plain_model_after_every_event(events: list[Event], database: Database) -> None:
    async def play() -> None:
        async with a_books_rig(database) as rig:
            organization = Play(rig, database)
            for event in events:
                await organization.happens(event)
                await organization.agrees_with_the_model()
            await rig.ender.make_pass()
            assert await rig.balances(organization.organization_id) == organization.model.balances()
            assert await rig.differences(organization.organization_id) == []

    asyncio.run(play())


# More than anything that follows, so that no refund depends on what came before it.
PLENTY: Event = ("grant", PREPAID, 10**15, None)
CALLS_OF_ALL = st.lists(st.integers(0, POOL_SIZE - 1), min_size=1, max_size=8).map(lambda calls: ("calls", calls))


@FEW
@given(
    calls=st.lists(CALLS_OF_ALL, min_size=2, max_size=6),
    others=st.lists(st.one_of(GRANTS.map(lambda grant: (*grant[:3], None)), st.just(("refund", 0, 5))), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_any_order_repetition_splitting_and_interleaving_gives_the_same_books(
    calls: list[Event], others: list[Event], seed: int, database: Database
) -> None:
    chance = random.Random(seed)
    numbers = [number for _, batch in calls for number in batch]
    again = [*numbers, *chance.choices(numbers, k=len(numbers) // 2)]
    chance.shuffle(again)
    size = chance.randint(1, 4)
    split = [("calls", again[start : start + size]) for start in range(0, len(again), size)]
    shuffled: list[Event] = [*split, *others, ("publish",)]
    chance.shuffle(shuffled)

    async def play() -> None:
        async with a_books_rig(database) as rig:
            books = []
            for events in ([PLENTY, *calls, *others, ("publish",)], [PLENTY, *shuffled]):
                organization = Play(rig, database)
                for event in events:
                    await organization.happens(event)
                assert await rig.differences(organization.organization_id) == []
                books.append(await _books(rig, database, organization))
        assert books[0] == books[1]

    asyncio.run(play())


async def _books(rig: BooksRig, database: Database, organization: Play) -> list[Any]:
    """All that must not depend on the order in which things came."""
    statement = await rig.statement(organization.organization_id)
    balances = await rig.balances(organization.organization_id)
    figures = "request_count, unpriced_count, input_tokens, output_tokens, cost_pico, saved_pico, charged_pico"
    query = (
        f"SELECT {figures} FROM ledger.usage_hour WHERE organization_id = %s ORDER BY hour, model, funding, workflow"
    )
    with psycopg.connect(database.admin_url) as connection:
        hours = connection.execute(query.encode(), (organization.organization_id,)).fetchall()
    return [
        statement.lines,
        statement.total,
        statement.balance,
        {account: amount for account, amount in balances.items() if account not in OWN},
        sum(balances.get(account, 0) for account in OWN),
        hours,
    ]
