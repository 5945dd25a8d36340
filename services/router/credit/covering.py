"""Covers a call: its worst case is reserved before a provider that our credit pays for is asked."""

from typing import NamedTuple

from services.common.money import usd_from_pico
from services.router.calls.admission import AdmittedCall
from services.router.credit.credit import LeasedCredit, Spender
from services.router.credit.price_bounds import PriceBounds
from services.router.credit.purse import Reservation
from services.router.credit.worst_case import Bound, cost_bound_pico, worst_case_pico
from services.router.errors import CreditTooLowError, InsufficientCreditsError
from services.router.routing.routing import Candidate, Funding, PlannedAttempt
from tollgate.ledger.v1.usage_pb2 import UsageRecord


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
    """The most that a call can be charged by one candidate."""

    candidate: Candidate
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
        # Each candidate that credit may pay for, and what the call can cost there; none until they are needed.
        self._worst_cases: list[_WorstCase] = []
        self._reservation: Reservation | None = None
        # What the record names.
        self._named_pico = 0

    async def open(self, first: PlannedAttempt) -> None:
        """Reserves, at the first attempt that credit pays for, what covers all of them, else as many as it does.

        Raises InsufficientCreditsError when it covers none, and UnavailableError when nobody can tell.
        """
        if first.funding is not Funding.CREDITS:
            return
        call = self._call
        candidates = [planned.candidate for planned in call.plan if planned.funding is Funding.CREDITS]
        bounds = await self._bounds.bounds(self._spender.organization_id, candidates)
        retained = call.grant.payload_retained
        self._worst_cases = [
            _WorstCase(each, bound, worst_case_pico(call.request, each, bound, payload_retained=retained))
            for each, bound in zip(candidates, bounds, strict=True)
        ]
        await self._reserve()

    async def take(self, planned: PlannedAttempt) -> None:
        """Makes sure that an attempt is covered. Raises what `open` does, for this attempt."""
        if planned.funding is not Funding.CREDITS:
            return
        if not self._worst_cases:
            await self.open(planned)
        needed_pico = self._needed_pico(planned)
        if needed_pico > self._named_pico:
            raise CreditTooLowError(usd_from_pico(needed_pico), usd_from_pico(self._named_pico))

    def put_back(self) -> None:
        """Gives up what was taken: there will be no record that names it."""
        if self._reservation is not None:
            self._credit.put_back(self._spender, self._reservation)
            del self._running[self._call.record.wire.request_id]
            self._reservation, self._named_pico = None, 0
            self._call.record.forget_reservation()

    def name_cost(self, record: UsageRecord) -> None:
        """Lowers what the record names to what the call can have cost, where the rest is of use here."""
        if self._reservation is None or self._reservation.lease.is_single:
            return
        for candidate, bound, _ in self._worst_cases:
            if candidate.model == record.model and candidate.provider == record.provider:
                self._named_pico = min(self._named_pico, cost_bound_pico(record, candidate, bound))
                record.reserved = usd_from_pico(self._named_pico)
                return

    def end(self) -> None:
        """Makes room for other calls by what the record does not name."""
        if self._reservation is not None:
            self._credit.put_back(self._spender, self._reservation, self._named_pico)
            self._reservation = None

    def _needed_pico(self, planned: PlannedAttempt) -> int:
        for each in self._worst_cases:
            if each.candidate is planned.candidate:
                return each.pico
        raise KeyError(planned)

    async def _reserve(self) -> None:
        amounts_pico = sorted({each.pico for each in self._worst_cases})
        while amounts_pico[-1] > 0:
            try:
                self._hold(await self._credit.reserve(self._spender, amounts_pico.pop()))
            except InsufficientCreditsError:
                if not amounts_pico:
                    raise
            else:
                return

    def _hold(self, reservation: Reservation) -> None:
        record = self._call.record
        self._reservation, self._named_pico = reservation, reservation.reserved_pico
        self._running[record.wire.request_id] = self
        record.take_reservation(reservation.lease.lease_id, usd_from_pico(reservation.reserved_pico))
