"""Calls that reserve from leases, against a ledger that decides as the real one does and can be made to fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from services.common.errors import UnavailableError
from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.leases.leases import LEASE_SECONDS, Lease, LeaseOutcome, Means, Wish, decide, returned_more
from services.router.credit.credit import LeasedCredit, Spender
from services.router.credit.purse import Reservation
from services.router.errors import CreditTooLowError, SpendingLimitReachedError
from services.router.spool.register import Epoch
from tollgate.ledger.v1 import credit_service_pb2 as wire

ACME = Spender("acme")
EPOCH = Epoch(UUID(int=7), 3)
USD = 10**12


@dataclass
class ModelLedger:
    """One organization's credit."""

    worth_pico: int = 100 * USD
    leases: dict[str, Lease] = field(default_factory=dict)
    asked: list[wire.AcquireLeaseRequest] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    is_away: bool = False
    loses_answers: bool = False
    limit: LeaseOutcome | None = None

    @property
    def held_pico(self) -> int:
        return sum(lease.held_pico for lease in self.leases.values())

    async def acquire(self, request: wire.AcquireLeaseRequest) -> wire.AcquireLeaseResponse:
        await self._answering()
        copy = wire.AcquireLeaseRequest()
        copy.CopyFrom(request)
        self.asked.append(copy)
        self._give_back(request.returns)
        answer = self._decided(request)
        if self.loses_answers:
            raise UnavailableError("lost")
        return answer

    def _decided(self, request: wire.AcquireLeaseRequest) -> wire.AcquireLeaseResponse:
        known = self.leases.get(request.lease_id)
        if known is not None:
            return _granted(known.granted_pico)
        if self.limit is not None:
            outcome = wire.LeaseOutcome.ValueType(self.limit)
            return wire.AcquireLeaseResponse(outcome=outcome, granted="0", available="0.25")
        wish = Wish(needed_pico=pico_from_usd(request.needed), wanted_pico=pico_from_usd(request.wanted))
        decision = decide(wish, Means(worth_pico=self.worth_pico, held_pico=self.held_pico))
        if decision.outcome is LeaseOutcome.GRANTED:
            self.leases[request.lease_id] = Lease(granted_pico=decision.granted_pico)
            return _granted(decision.granted_pico)
        outcome = wire.LeaseOutcome.ValueType(decision.outcome)
        return wire.AcquireLeaseResponse(outcome=outcome, granted="0", available=usd_from_pico(decision.available_pico))

    async def renew(self, request: wire.RenewLeaseRequest) -> wire.RenewLeaseResponse:
        await self._answering()
        self.renewed += request.lease_ids
        return wire.RenewLeaseResponse(lease_ids=request.lease_ids, lease_seconds=60)

    async def release(self, request: wire.ReleaseLeaseRequest) -> wire.ReleaseLeaseResponse:
        await self._answering()
        self._give_back(request.returns)
        return wire.ReleaseLeaseResponse()

    def record(self, reservation: Reservation, cost_pico: int) -> None:
        """The call is recorded: its lease holds its reservation no more."""
        lease_id = reservation.lease.lease_id
        lease = self.leases[lease_id]
        settled_pico = lease.settled_pico + reservation.reserved_pico
        self.leases[lease_id] = Lease(
            granted_pico=lease.granted_pico, returned_pico=lease.returned_pico, settled_pico=settled_pico
        )
        self.worth_pico -= cost_pico

    def _give_back(self, returns: object) -> None:
        for one in returns:  # type: ignore[attr-defined]
            lease, total = self.leases[one.lease_id], pico_from_usd(one.returned)
            returned_pico = lease.returned_pico + returned_more(lease, total)
            self.leases[one.lease_id] = Lease(
                granted_pico=lease.granted_pico, returned_pico=returned_pico, settled_pico=lease.settled_pico
            )

    async def _answering(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise UnavailableError("away")


def _granted(pico: int) -> wire.AcquireLeaseResponse:
    return wire.AcquireLeaseResponse(
        outcome=wire.LEASE_OUTCOME_GRANTED, granted=usd_from_pico(pico), lease_seconds=60, available="0"
    )


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def credit_of(ledger: ModelLedger, clock: Callable[[], float] | None = None) -> AsyncIterator[LeasedCredit]:
    credit = LeasedCredit(ledger, EPOCH, clock or Clock())
    credit.start()
    try:
        yield credit
    finally:
        await credit.stop()


async def settled() -> None:
    """Everything that needs no time has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_one_lease_serves_many_calls() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        reserved = [await credit.reserve(ACME, USD // 10) for _ in range(20)]

        assert len(ledger.asked) == 1
        assert {one.lease.lease_id for one in reserved} == set(ledger.leases)


async def test_the_next_lease_is_there_before_anybody_has_to_wait() -> None:
    ledger = ModelLedger()
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        await credit.reserve(ACME, 3 * USD)
        clock.now += 1
        await settled()
        await credit.reserve(ACME, USD // 10)
        await settled()

        assert len(ledger.leases) == 2


async def test_a_lease_names_the_life_of_the_log_that_owes_its_records() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        await credit.reserve(Spender("acme", "key-1"), USD)

        (asked,) = ledger.asked
        assert (asked.producer_id, asked.epoch, asked.api_key_id) == (str(EPOCH.producer_id), 3, "key-1")


async def test_what_is_not_there_is_refused_and_not_asked_for_again_within_a_second() -> None:
    ledger = ModelLedger(worth_pico=USD)
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        for needed in (2 * USD, 2 * USD, 3 * USD):
            with pytest.raises(CreditTooLowError):
                await credit.reserve(ACME, needed)
        asked = len(ledger.asked)
        await credit.reserve(ACME, USD // 2)
        ledger.worth_pico = 100 * USD
        clock.now += 1.0
        await credit.reserve(ACME, 2 * USD)

        assert asked == 1


@pytest.mark.parametrize(
    ("outcome", "whose"),
    [(LeaseOutcome.LIMIT_REACHED, "key"), (LeaseOutcome.ORGANIZATION_LIMIT_REACHED, "organization")],
)
async def test_who_has_spent_a_limit_is_told_whose_it_is_and_what_it_leaves(outcome: LeaseOutcome, whose: str) -> None:
    async with credit_of(ModelLedger(limit=outcome)) as credit:
        with pytest.raises(SpendingLimitReachedError, match=f"limit of this {whose} leaves 0.25 USD") as refusal:
            await credit.reserve(Spender("acme", "key-1"), USD)

        assert refusal.value.metadata == {"limit": whose, "needed": "1", "available": "0.25"}


async def test_a_call_waits_for_credit_that_other_calls_hold() -> None:
    ledger = ModelLedger(worth_pico=USD)
    async with credit_of(ledger) as credit:
        first = await credit.reserve(ACME, USD * 8 // 10)
        waiting = asyncio.create_task(credit.reserve(ACME, USD * 8 // 10))
        await asyncio.sleep(0.05)
        was_waiting = not waiting.done()
        ledger.record(first, cost_pico=1)

        assert was_waiting
        assert (await waiting).reserved_pico == USD * 8 // 10


async def test_credit_that_stays_held_is_no_reason_to_say_that_there_is_none() -> None:
    ledger = ModelLedger(worth_pico=USD)
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        await credit.reserve(ACME, USD * 8 // 10)
        waiting = asyncio.create_task(credit.reserve(ACME, USD * 8 // 10))
        await asyncio.sleep(0.05)
        clock.now += 2.0

        with pytest.raises(UnavailableError):
            await waiting


async def test_a_call_that_needs_less_overtakes_one_that_cannot_be_covered_yet() -> None:
    ledger = ModelLedger(worth_pico=USD)
    async with credit_of(ledger) as credit:
        await credit.reserve(ACME, USD * 6 // 10)
        large = asyncio.create_task(credit.reserve(ACME, USD * 6 // 10))
        await asyncio.sleep(0)
        small = await credit.reserve(ACME, USD * 3 // 10)

        assert small.reserved_pico == USD * 3 // 10
        assert not large.done()
        large.cancel()


async def test_leftovers_of_leases_are_given_back_where_they_are_what_is_missing() -> None:
    ledger = ModelLedger(worth_pico=100 * USD)
    async with credit_of(ledger) as credit:
        await credit.reserve(ACME, USD)
        ledger.worth_pico = 10 * USD
        reserved = await credit.reserve(ACME, 9 * USD)

        assert reserved.reserved_pico == 9 * USD
        assert ledger.held_pico == 10 * USD


async def test_while_the_ledger_is_away_calls_go_on_from_what_is_leased_and_then_nobody_can_tell() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        await credit.reserve(ACME, USD)
        await settled()
        ledger.is_away = True
        from_leases = [await credit.reserve(ACME, USD) for _ in range(4)]

        with pytest.raises(UnavailableError) as refusal:
            await credit.reserve(ACME, 6 * USD)
        assert len(from_leases) == 4
        assert refusal.value.retry_after_seconds == 1


async def test_while_the_ledger_is_away_a_call_waits_for_those_that_run_to_leave_it_room() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        running = await credit.reserve(ACME, 4 * USD)
        await settled()
        ledger.is_away = True
        waiting = asyncio.create_task(credit.reserve(ACME, 4 * USD))
        await asyncio.sleep(0.05)
        was_waiting = not waiting.done()
        credit.put_back(ACME, running, kept_pico=1)

        assert was_waiting
        assert (await waiting).lease is running.lease


async def test_a_lease_whose_answer_was_lost_is_asked_for_until_it_is_known() -> None:
    ledger = ModelLedger(loses_answers=True)
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        with pytest.raises(UnavailableError):
            await credit.reserve(ACME, USD)
        ledger.loses_answers = False
        clock.now += 2
        await credit.reserve(ACME, USD)

        assert len(ledger.leases) == 1
        assert len({asked.lease_id for asked in ledger.asked}) == 1


async def test_a_lease_that_is_used_is_renewed_half_way_and_one_that_is_not_is_given_back() -> None:
    ledger = ModelLedger()
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        first = await credit.reserve(ACME, USD)
        clock.now += 29
        second = await credit.reserve(ACME, USD)
        clock.now += 1
        await until(lambda: bool(ledger.renewed))
        clock.now += 14
        await until(lambda: ledger.held_pico == 2 * USD)

        assert first.lease is second.lease


async def test_unused_credit_is_available_again_within_the_lease_time() -> None:
    ledger = ModelLedger()
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        used = await credit.reserve(ACME, USD)
        clock.now += LEASE_SECONDS / 2
        cut_off = await credit.reserve(ACME, USD)
        credit.put_back(ACME, cut_off)
        credit.put_back(ACME, used, kept_pico=USD // 4)
        clock.now += LEASE_SECONDS / 2
        await until(lambda: ledger.held_pico == USD // 4)
        ledger.record(Reservation(used.lease, USD // 4), cost_pico=USD // 5)

        assert ledger.held_pico == 0


async def test_what_nobody_uses_is_kept_while_the_ledger_is_away() -> None:
    ledger = ModelLedger(is_away=True)
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        with pytest.raises(UnavailableError):
            await credit.reserve(ACME, USD)
        ledger.is_away = False
        clock.now += 2
        await credit.reserve(ACME, USD)
        await settled()
        ledger.is_away = True
        clock.now += 31
        await asyncio.sleep(1.1)
        clock.now += 31

        assert (await credit.reserve(ACME, USD)).reserved_pico == USD


async def test_a_reservation_that_no_record_names_can_be_put_back_even_after_its_lease_is_gone() -> None:
    ledger = ModelLedger()
    clock = Clock()
    async with credit_of(ledger, clock) as credit:
        reserved = await credit.reserve(ACME, USD)
        clock.now += 15
        await until(lambda: ledger.held_pico == USD)
        credit.put_back(ACME, reserved)

        await until(lambda: ledger.held_pico == 0)


async def test_a_caller_who_gives_up_takes_nothing() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        gone = asyncio.create_task(credit.reserve(ACME, USD))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await settled()
        await credit.stop()

    assert ledger.held_pico == 0


async def test_stopping_gives_back_what_is_not_reserved() -> None:
    ledger = ModelLedger()
    async with credit_of(ledger) as credit:
        await credit.reserve(ACME, USD)
        await settled()

    assert ledger.held_pico == USD


async def test_many_callers_of_several_workers_never_hold_more_than_there_is() -> None:
    ledger = ModelLedger(worth_pico=10_000)

    async def call(credit: LeasedCredit, number: int) -> bool:
        try:
            reservation = await credit.reserve(ACME, 900 + number % 7)
        except (CreditTooLowError, UnavailableError):
            return False
        assert ledger.held_pico <= ledger.worth_pico
        await asyncio.sleep(0.001)
        ledger.record(reservation, cost_pico=number % 900)
        return True

    async with credit_of(ledger) as one, credit_of(ledger) as two:
        made = await asyncio.gather(*(call((one, two)[number % 2], number) for number in range(100)))

    assert ledger.worth_pico >= 0
    assert ledger.held_pico == 0
    assert sum(made) > 10
