"""Covers a call: its worst case is reserved before a provider that our credit pays for is asked."""

from typing import Protocol

from services.common.money import usd_from_pico
from services.router.admission import AdmittedCall
from services.router.credit import LeasedCredit, Spender
from services.router.errors import CreditTooLowError, InsufficientCreditsError
from services.router.price_bounds import PriceBounds
from services.router.purse import Reservation
from services.router.routing import Candidate, Funding, PlannedAttempt
from services.router.worst_case import worst_case_pico


class Cover(Protocol):
    """What stands between one call and the organization's credit."""

    async def take(self, planned: PlannedAttempt) -> None:
        """Makes sure that the attempt is covered.

        Raises InsufficientCreditsError when it cannot be, and UnavailableError when nobody can tell.
        """

    def put_back(self) -> None:
        """Gives up what was taken: there will be no record that names it."""


class NoCover:
    """For routers that go by the balance alone."""

    async def take(self, planned: PlannedAttempt) -> None:
        return

    def put_back(self) -> None:
        return


class LeaseCover:
    """The cover of one call by one reservation, which is enough for whichever attempt answers."""

    def __init__(self, credit: LeasedCredit, bounds: PriceBounds, call: AdmittedCall) -> None:
        self._credit = credit
        self._bounds = bounds
        self._call = call
        grant = call.grant
        self._spender = Spender(grant.organization_id, grant.api_key_id if grant.HasField("spending_limit") else "")
        self._worst_pico: dict[Candidate, int] | None = None
        self._reserved_pico = 0
        self._reservation: Reservation | None = None

    async def take(self, planned: PlannedAttempt) -> None:
        """Reserves, at the first attempt that credit pays for, what the dearest of them can cost."""
        if planned.funding is not Funding.CREDITS:
            return
        if self._worst_pico is None:
            self._worst_pico = await self._worst_cases()
            await self._reserve(self._worst_pico[planned.candidate], max(self._worst_pico.values()))
        needed_pico = self._worst_pico[planned.candidate]
        if needed_pico > self._reserved_pico:
            raise CreditTooLowError(usd_from_pico(needed_pico), usd_from_pico(self._reserved_pico))

    def put_back(self) -> None:
        if self._reservation is not None:
            self._credit.put_back(self._spender, self._reservation)
            self._reservation, self._reserved_pico = None, 0
            self._call.record.forget_reservation()

    async def _worst_cases(self) -> dict[Candidate, int]:
        call = self._call
        funded = [planned.candidate for planned in call.plan if planned.funding is Funding.CREDITS]
        candidates = list(dict.fromkeys(funded))
        bounds = await self._bounds.bounds(self._spender.organization_id, candidates)
        return {
            candidate: worst_case_pico(call.request, candidate, bound, payload_retained=call.grant.payload_retained)
            for candidate, bound in zip(candidates, bounds, strict=True)
        }

    async def _reserve(self, needed_pico: int, best_pico: int) -> None:
        """What covers every attempt, else what covers this one."""
        if best_pico == 0:
            return
        try:
            reservation = await self._credit.reserve(self._spender, best_pico)
        except InsufficientCreditsError:
            if needed_pico == best_pico:
                raise
            if needed_pico == 0:
                return
            reservation = await self._credit.reserve(self._spender, needed_pico)
        self._reservation, self._reserved_pico = reservation, reservation.reserved_pico
        self._call.record.take_reservation(reservation.lease.lease_id, usd_from_pico(reservation.reserved_pico))
