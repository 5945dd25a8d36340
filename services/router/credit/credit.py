"""Keeps a worker in credit: leases from the ledger before anybody has to wait, and gives back what nobody uses."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from services.common.errors import DomainError, UnavailableError
from services.common.money import pico_from_usd, usd_from_pico
from services.router.credit.purse import Purse, Reservation, Return
from services.router.errors import CreditTooLowError, SpendingLimitReachedError
from services.router.metrics import CREDIT_REFUSALS, LEASE_REQUESTS
from services.router.spool.register import Epoch
from tollgate.ledger.v1 import credit_service_pb2 as wire

# How long a call waits for credit that other calls hold, and for the ledger to answer.
WAIT_SECONDS_MAX = 2.0
HELD_PAUSE_SECONDS_MIN = 0.02
HELD_PAUSE_SECONDS_MAX = 0.2
# After a refusal, how long nobody asks again for as much; new credit counts from then on.
REFUSED_SECONDS = 1.0
# After the ledger failed to answer.
AWAY_SECONDS = 1.0
# What is going to be needed: as much as was, for so long.
AHEAD_MS = 30_000
# How often more is leased than anybody waits for.
EARLY_PAUSE_SECONDS = 0.1
TICK_SECONDS = 1.0
LAST_WORDS_SECONDS = 2.0
AT_ONCE_MAX = 100

log = logging.getLogger("tollgate.credit")


class LeaseLedger(Protocol):
    """The ledger's `CreditService`, as far as leases go. Every method raises UnavailableError when it cannot answer."""

    async def acquire(self, request: wire.AcquireLeaseRequest) -> wire.AcquireLeaseResponse: ...
    async def renew(self, request: wire.RenewLeaseRequest) -> wire.RenewLeaseResponse: ...
    async def release(self, request: wire.ReleaseLeaseRequest) -> wire.ReleaseLeaseResponse: ...


class Spender(NamedTuple):
    """Whose credit a call takes, and whose limit it counts against."""

    organization_id: str
    # Empty for keys without a spending limit.
    api_key_id: str = ""


@dataclass(slots=True, eq=False)
class _Waiting:
    amount_pico: int
    since: float
    result: asyncio.Future[Reservation]


@dataclass(slots=True)
class _Refusal:
    amount_pico: int
    until: float
    outcome: "wire.LeaseOutcome.ValueType"
    available: str


class LeasedCredit:
    """The purses of one worker. Lives from `start` to `stop`."""

    def __init__(self, ledger: LeaseLedger, epoch: Epoch, clock: Callable[[], float] = time.monotonic) -> None:
        """`epoch` is the life of the log that records go to."""
        self._ledger = ledger
        self._epoch = epoch
        self._clock = clock
        self._accounts: dict[Spender, _Account] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="credit")

    async def stop(self) -> None:
        """Gives back what is not reserved. What the ledger does not hear of lapses with this life of the log."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for account in self._accounts.values():
            account.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await asyncio.gather(*(account.tell() for account in self._accounts.values()), return_exceptions=True)

    def reserve(self, spender: Spender, amount_pico: int) -> Coroutine[Any, Any, Reservation]:
        """Sets the amount aside, at once where a lease has so much.

        Raises InsufficientCreditsError when there is less, and UnavailableError when nobody can tell, or when other
        calls hold it for longer than a call may wait.
        """
        return self._account(spender).reserve(amount_pico)

    def put_back(self, spender: Spender, reservation: Reservation, kept_pico: int = 0) -> None:
        """Undoes a reservation, but for what a durable record names of it."""
        self._account(spender).put_back(reservation, kept_pico)

    def _account(self, spender: Spender) -> "_Account":
        account = self._accounts.get(spender)
        if account is None:
            account = self._accounts[spender] = _Account(spender, self._ledger, self._epoch, self._clock)
        return account

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._look_after_all()
            except UnavailableError as error:
                log.warning("leases are looked after when the ledger is back: %s", error.message)

    async def _look_after_all(self) -> None:
        """Raises UnavailableError at the first that the ledger does not answer for."""
        for spender, account in list(self._accounts.items()):
            try:
                await account.look_after()
            except UnavailableError:
                raise
            except Exception:
                log.exception("leases could not be looked after")
            if account.is_idle:
                del self._accounts[spender]


@dataclass(slots=True)
class _Account:
    """One purse, and those who wait for it. Asks the ledger for one lease at a time."""

    spender: Spender
    ledger: LeaseLedger
    epoch: Epoch
    clock: Callable[[], float]
    purse: Purse = field(default_factory=Purse)
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _task: asyncio.Task[None] | None = None
    # Asked for, and never answered: may have been granted, so it is asked for again until there is an answer.
    _unanswered: wire.AcquireLeaseRequest | None = None
    _asked_at: float = 0.0
    _refusal: _Refusal | None = None
    _away_until: float = float("-inf")
    _early_not_before: float = float("-inf")
    # Since the last lease, and by the last call.
    _reserved_pico: int = 0
    _reserved_since: float = 0.0
    _last_pico: int = 1

    @property
    def is_idle(self) -> bool:
        purse = self.purse
        return not (purse.leases or purse.unsaid or self._waiting or self._task or self._unanswered or self._refusal)

    async def reserve(self, amount_pico: int) -> Reservation:
        now = self.clock()
        reservation = None if self._first() is not None else self.purse.reserve(amount_pico, now)
        if reservation is not None:
            self._note(amount_pico)
            if self._task is None and now >= self._early_not_before and self.purse.runs_low():
                self._begin_work()
            return reservation
        self._refuse_what_is_known(amount_pico, now)
        waiting = _Waiting(amount_pico, now, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._begin_work()
        try:
            return await waiting.result
        except asyncio.CancelledError:
            if waiting.result.done() and not waiting.result.cancelled() and waiting.result.exception() is None:
                self.purse.put_back(waiting.result.result())
            raise

    def put_back(self, reservation: Reservation, kept_pico: int) -> None:
        self.purse.put_back(reservation, kept_pico)
        self._serve()

    def _note(self, amount_pico: int) -> None:
        self._reserved_pico += amount_pico
        self._last_pico = amount_pico

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.purse.close_all()

    async def look_after(self) -> None:
        """Prolongs what is used, gives back what is not. Raises UnavailableError."""
        now = self.clock()
        if self._refusal is not None and now >= self._refusal.until:
            self._refusal = None
        if self._unanswered is not None and now >= self._away_until:
            self._begin_work()
        due = self.purse.due(now)[:AT_ONCE_MAX]
        if due:
            request = wire.RenewLeaseRequest(organization_id=self.spender.organization_id, lease_ids=due)
            answer = await self.ledger.renew(request)
            self.purse.renewed(due, answer.lease_ids, now, answer.lease_seconds)
            self.purse.close_idle(now)
        await self.tell()

    async def tell(self) -> None:
        """Tells the ledger what was given back. Raises UnavailableError."""
        returns = self.purse.returns()[:AT_ONCE_MAX]
        if returns:
            request = wire.ReleaseLeaseRequest(
                organization_id=self.spender.organization_id, returns=map(_return_to_proto, returns)
            )
            await self.ledger.release(request)
            self.purse.said(returns)

    def _refuse_what_is_known(self, amount_pico: int, now: float) -> None:
        if now < self._away_until and not self.purse.can_ever_reserve(amount_pico):
            raise _unknown()
        refusal = self._refusal
        if refusal is not None and now < refusal.until and amount_pico >= refusal.amount_pico:
            raise self._refused(amount_pico, refusal)

    def _refused(self, amount_pico: int, refusal: _Refusal) -> DomainError:
        CREDIT_REFUSALS.labels(wire.LeaseOutcome.Name(refusal.outcome).removeprefix("LEASE_OUTCOME_").lower()).inc()
        if refusal.outcome == wire.LEASE_OUTCOME_INSUFFICIENT:
            return CreditTooLowError(usd_from_pico(amount_pico), refusal.available)
        whose = "key" if refusal.outcome == wire.LEASE_OUTCOME_LIMIT_REACHED else "organization"
        return SpendingLimitReachedError(whose, usd_from_pico(amount_pico), refusal.available)

    # One task at a time leases for all who wait.

    def _begin_work(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="lease")
            self._task.add_done_callback(self._end_work)

    def _end_work(self, done: asyncio.Task[None]) -> None:
        self._task = None
        if not done.cancelled() and done.exception() is not None:
            log.error("leasing broke", exc_info=done.exception())
            self._fail_all(_unknown())
        elif self._first() is not None:
            self._begin_work()

    async def _work(self) -> None:
        """Leases until nobody waits any more; once, where nobody does yet."""
        pause_seconds = HELD_PAUSE_SECONDS_MIN
        is_early = self._first() is None
        while is_early or self._first() is not None:
            try:
                needed_pico, answer = await self._ask()
            except UnavailableError as error:
                self._away_until = self._early_not_before = self.clock() + AWAY_SECONDS
                self._fail_who_waits_in_vain(error)
                if self._first() is None:
                    return
                await asyncio.sleep(HELD_PAUSE_SECONDS_MAX)
                continue
            self._serve()
            if answer.outcome == wire.LEASE_OUTCOME_GRANTED:
                pause_seconds = HELD_PAUSE_SECONDS_MIN
            elif answer.outcome != wire.LEASE_OUTCOME_HELD:
                self._refuse(needed_pico, answer)
            elif self.purse.leases and not is_early:
                # What is left of them may be what is missing.
                self.purse.close_all()
            elif not is_early:
                self._fail_those_who_waited()
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, HELD_PAUSE_SECONDS_MAX)
                # Somebody behind may need less.
                self._waiting.rotate(-1)
                self._serve()
            if is_early:
                self._early_not_before = self.clock() + EARLY_PAUSE_SECONDS
                is_early = False

    async def _ask(self) -> tuple[int, wire.AcquireLeaseResponse]:
        """Asks for a lease, or again for the one that was not answered. Raises UnavailableError."""
        if self._unanswered is None:
            first = self._first()
            self._asked_at = self.clock()
            self._unanswered = self._request(first.amount_pico if first is not None else self._last_pico)
        request = self._unanswered
        returns = self.purse.returns()[:AT_ONCE_MAX]
        del request.returns[:]
        request.returns.extend(map(_return_to_proto, returns))
        try:
            answer = await self.ledger.acquire(request)
        except UnavailableError:
            raise
        except DomainError:
            # It knows better: there is no such organization any more, or this life is over for it.
            self._unanswered = None
            raise
        self._unanswered = None
        self.purse.said(returns)
        LEASE_REQUESTS.labels(wire.LeaseOutcome.Name(answer.outcome).removeprefix("LEASE_OUTCOME_").lower()).inc()
        if answer.outcome == wire.LEASE_OUTCOME_GRANTED:
            granted_pico = pico_from_usd(answer.granted)
            needed_pico = pico_from_usd(request.needed)
            self.purse.take_in(request.lease_id, granted_pico, needed_pico, self._asked_at, answer.lease_seconds)
            self._reserved_pico, self._reserved_since = 0, self._asked_at
        return pico_from_usd(request.needed), answer

    def _request(self, needed_pico: int) -> wire.AcquireLeaseRequest:
        milliseconds = max(100, round(1_000 * (self._asked_at - self._reserved_since)))
        return wire.AcquireLeaseRequest(
            lease_id=str(uuid4()),
            organization_id=self.spender.organization_id,
            api_key_id=self.spender.api_key_id,
            producer_id=str(self.epoch.producer_id),
            epoch=self.epoch.number,
            needed=usd_from_pico(needed_pico),
            wanted=usd_from_pico(self._reserved_pico * AHEAD_MS // milliseconds),
        )

    def _first(self) -> _Waiting | None:
        """Who has waited longest and still does."""
        while self._waiting and self._waiting[0].result.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _serve(self) -> None:
        """Gives to those who wait, in their order, as far as it goes."""
        while (first := self._first()) is not None:
            reservation = self.purse.reserve(first.amount_pico, self.clock())
            if reservation is None:
                return
            self._note(first.amount_pico)
            first.result.set_result(reservation)

    def _refuse(self, needed_pico: int, answer: wire.AcquireLeaseResponse) -> None:
        """Refuses all who need as much as there is not."""
        refusal = _Refusal(needed_pico, self.clock() + REFUSED_SECONDS, answer.outcome, answer.available)
        self._refusal = refusal
        for waiting in self._waiting:
            if waiting.amount_pico >= needed_pico and not waiting.result.done():
                waiting.result.set_exception(self._refused(waiting.amount_pico, refusal))

    def _fail_those_who_waited(self) -> None:
        now = self.clock()
        for waiting in self._waiting:
            if now - waiting.since >= WAIT_SECONDS_MAX and not waiting.result.done():
                CREDIT_REFUSALS.labels("held").inc()
                waiting.result.set_exception(UnavailableError("Running calls hold the credit that is left; try again."))

    def _fail_who_waits_in_vain(self, error: DomainError) -> None:
        """While the ledger is away, calls that end make room in the leases there are, and nothing else does."""
        now = self.clock()
        for waiting in self._waiting:
            is_hopeless = now - waiting.since >= WAIT_SECONDS_MAX or not self.purse.can_ever_reserve(
                waiting.amount_pico
            )
            if is_hopeless and not waiting.result.done():
                CREDIT_REFUSALS.labels("unknown").inc()
                waiting.result.set_exception(error)

    def _fail_all(self, error: DomainError) -> None:
        for waiting in self._waiting:
            if not waiting.result.done():
                CREDIT_REFUSALS.labels("unknown").inc()
                waiting.result.set_exception(error)


def _unknown() -> UnavailableError:
    return UnavailableError("Nobody can tell right now how much credit is left; try again.")


def _return_to_proto(one: Return) -> wire.LeaseReturn:
    return wire.LeaseReturn(lease_id=one.lease_id, returned=usd_from_pico(one.returned_pico), closed=one.closed)
