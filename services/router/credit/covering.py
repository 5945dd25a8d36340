"""Covers a call: the most that it can be charged is reserved before a provider is asked.

Where our credit pays the provider, a call that is not covered is not made. Where an own key does, or an earlier answer
is given again, only what is retained is charged: what is not covered of that is not retained.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from services.common.errors import DomainError
from services.common.money import usd_from_pico
from services.router.calls.admission import AdmittedCall
from services.router.credit.credit import LeasedCredit, Spender
from services.router.credit.price_bounds import PriceBounds
from services.router.credit.purse import Reservation
from services.router.credit.worst_case import Bound, Demand, cost_bound_pico, storage_pico, worst_case_pico
from services.router.errors import CreditTooLowError, InsufficientCreditsError
from services.router.routing.routing import Funding, PlannedAttempt
from tollgate.ledger.v1.usage_pb2 import UsageRecord

# How long a call waits for credit that only pays for what is retained of it.
STORAGE_WAIT_SECONDS_MAX = 0.25


class LeaseCovers:
    """The covers of all running calls, by request. Lives as long as its worker."""

    def __init__(self, credit: LeasedCredit, bounds: PriceBounds) -> None:
        self._credit = credit
        self._bounds = bounds
        self._open: dict[str, LeaseCover] = {}

    def cover_of(self, call: AdmittedCall) -> "LeaseCover":
        return LeaseCover(self._credit, self._bounds, self._open, call)

    def name_cost(self, record: UsageRecord) -> None:
        """Puts into a final record what its call can have cost at most."""
        cover = self._open.get(record.request_id)
        if cover is not None:
            cover.name_cost(record)

    def end(self, record: UsageRecord) -> None:
        """The journal has the record: what it does not name can be reserved again."""
        cover = self._open.pop(record.request_id, None)
        if cover is not None:
            cover.end()


class _WorstCase(NamedTuple):
    """The most that a call can be charged when one of its attempts answers."""

    planned: PlannedAttempt
    bound: Bound
    pico: int


class LeaseCover:
    """The cover of one call by one reservation, which is enough for whichever attempt answers."""

    def __init__(
        self, credit: LeasedCredit, bounds: PriceBounds, running: dict[str, "LeaseCover"], call: AdmittedCall
    ) -> None:
        """Puts itself among the running while it holds something."""
        self._credit = credit
        self._bounds = bounds
        self._running = running
        self._call = call
        grant = call.grant
        self._spender = Spender(grant.organization_id, grant.api_key_id if grant.HasField("spending_limit") else "")
        # Of the attempts that have been looked at: one funding after the other, none until it is needed.
        self._worst_cases: list[_WorstCase] = []
        # The record names the last. One before it was for what is retained, until credit had to pay for all.
        self._reservations: list[Reservation] = []
        self._named_pico = 0

    async def open(self, first: PlannedAttempt) -> None:
        """Reserves what covers all attempts that are paid for like the first, else as many as it does.

        Where credit pays for it, raises InsufficientCreditsError when it covers none, and UnavailableError when nobody
        can tell.
        """
        if first.funding is Funding.CREDITS:
            await self._cover(Funding.CREDITS)
        elif self._call.record.wire.payload_retained:
            async with _for_storage():
                await self._cover(Funding.OWN_KEY)

    async def open_for_cached(self, first: UsageRecord) -> None:
        """Reserves what it costs to retain the answer of an earlier call, which is given again."""
        if self._call.record.wire.payload_retained:
            needed_pico = None
            async with _for_storage():
                (bound,) = await self._bounds.bounds(self._spender.organization_id, [first])
                needed_pico = storage_pico(first.usage, bound)
                await self._reserve({needed_pico})
            self._retain_if_covered(needed_pico)

    async def take(self, planned: PlannedAttempt) -> None:
        """Makes sure that an attempt is covered. Raises what `open` does, for this attempt."""
        if planned.funding is Funding.OWN_KEY:
            if self._call.record.wire.payload_retained:
                self._retain_if_covered(self._needed_pico(planned))
            return
        needed_pico = self._needed_pico(planned)
        if needed_pico is None:
            await self._cover(Funding.CREDITS)
            needed_pico = self._needed_pico(planned)
        assert needed_pico is not None, "only planned attempts are taken"  # noqa: S101
        if needed_pico > self._named_pico:
            raise CreditTooLowError(usd_from_pico(needed_pico), usd_from_pico(self._named_pico))

    def put_back(self) -> None:
        """Gives up what was taken: there will be no record that names it."""
        if self._reservations:
            self._named_pico = 0
            self.end()
            del self._running[self._call.record.wire.request_id]
            self._call.record.forget_reservation()

    def name_cost(self, record: UsageRecord) -> None:
        """Lowers what the record names to what the call can have cost, where the rest is of use here."""
        if not self._reservations or self._reservations[-1].lease.is_single:
            return
        for planned, bound, _ in self._worst_cases:
            candidate = planned.candidate
            if candidate.model == record.model and candidate.provider == record.provider:
                self._named_pico = min(self._named_pico, cost_bound_pico(record, candidate, bound))
                record.reserved = usd_from_pico(self._named_pico)
                return

    def end(self) -> None:
        """Makes room for other calls by what the record does not name."""
        named_pico = self._named_pico
        while self._reservations:
            self._credit.put_back(self._spender, self._reservations.pop(), named_pico)
            named_pico = 0

    async def _cover(self, funding: Funding) -> None:
        """Raises what `open` does."""
        call = self._call
        attempts = [planned for planned in call.plan if planned.funding is funding]
        bounds = await self._bounds.bounds(self._spender.organization_id, [each.candidate for each in attempts])
        demand, pays, retained = Demand(call.request), funding is Funding.CREDITS, call.record.wire.payload_retained
        worst_cases = [
            _WorstCase(
                each,
                bound,
                worst_case_pico(demand, each.candidate, bound, credit_pays=pays, payload_retained=retained),
            )
            for each, bound in zip(attempts, bounds, strict=True)
        ]
        self._worst_cases += worst_cases
        await self._reserve({each.pico for each in worst_cases})

    def _needed_pico(self, planned: PlannedAttempt) -> int | None:
        """None when nobody has looked at it."""
        for each in self._worst_cases:
            if each.planned is planned:
                return each.pico
        return None

    def _retain_if_covered(self, needed_pico: int | None) -> None:
        if needed_pico is None or needed_pico > self._named_pico:
            self._call.record.retain_nothing()

    async def _reserve(self, amounts_pico: Collection[int]) -> None:
        """Of these the largest that there is credit for."""
        ascending = sorted(amounts_pico)
        while ascending[-1] > 0:
            try:
                self._hold(await self._credit.reserve(self._spender, ascending.pop()))
            except InsufficientCreditsError:
                if not ascending:
                    raise
            else:
                return

    def _hold(self, reservation: Reservation) -> None:
        record = self._call.record
        self._reservations.append(reservation)
        self._named_pico = reservation.reserved_pico
        self._running[record.wire.request_id] = self
        record.take_reservation(reservation.lease.lease_id, usd_from_pico(reservation.reserved_pico))


@asynccontextmanager
async def _for_storage() -> AsyncIterator[None]:
    """Gives up in silence: whoever finds nothing reserved retains nothing."""
    with suppress(DomainError, TimeoutError):
        async with asyncio.timeout(STORAGE_WAIT_SECONDS_MAX):
            yield
