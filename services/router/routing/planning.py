"""Puts together what decides a call's tries: the table of models, the policy, keys, health, prices and chance."""

import random
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import ModelRequest
from services.router.keys.key_ring import KeyRing
from services.router.routing.health import Health, Way
from services.router.routing.ordering import Order, Preference, PriceOf, in_order
from services.router.routing.routing import (
    ATTEMPTS_MAX,
    AUTO,
    Candidate,
    Funding,
    Mode,
    PlannedAttempt,
    RoutingTable,
    plan,
)
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse

# Nothing but the order of configuration.
_PLAIN = Preference()
_CREDITS = int(Mode.CREDITS)


class Planner:
    """Plans calls. Lives as long as its worker."""

    def __init__(
        self,
        table: RoutingTable,
        key_ring: KeyRing,
        health: Health,
        *,
        auto_order: Order,
        price_of: PriceOf,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._table = table
        self._auto_order = auto_order
        self._key_ring = key_ring
        self._health = health
        self._price_of = price_of
        self._clock = clock
        self._draw = draw
        self._offers: dict[tuple[str, str], _Offer] = {}

    def plan(
        self, request: ModelRequest, grant: ResolveKeyResponse, preference: Preference
    ) -> Sequence[PlannedAttempt]:
        """The tries in order; at least one. Raises a DomainError when there is nothing that may be tried."""
        offer = self._offer(request)
        now = self._clock()
        if (
            offer.is_plain
            and preference == _PLAIN
            and grant.project_mode == _CREDITS
            and grant.credit_available
            and not request.kept_member
            and self._health.is_untroubled(now)
        ):
            # Nothing to decide, as for most calls.
            return offer.on_credit
        if request.model == AUTO:
            preference = replace(preference, order=self._auto_order)
        own_keys = self._key_ring.own_key_names(grant) if grant.provider_keys else {}
        return plan(
            in_order(
                offer.candidates,
                preference,
                standing_of=lambda candidate: self._health.standing(candidate, now),
                price_of=self._price_of,
                draw=self._draw,
            ),
            _mode_for(request, Mode(int(grant.project_mode)), offer.candidates, own_keys),
            own_keys,
            credit_available=grant.credit_available,
            wait_of=lambda planned: self._health.wait(Way.of(planned), now),
        )

    def _offer(self, request: ModelRequest) -> "_Offer":
        """Who offers the model on this endpoint. Raises a DomainError when nobody does."""
        name = (request.model, request.endpoint.name)
        offer = self._offers.get(name)
        if offer is None:
            offers = self._table.candidates(request.model)
            candidates = tuple(each for each in offers if request.endpoint.name in each.endpoints)
            if not candidates:
                raise InvalidRequestError("model", f"'{request.model}' is not offered on {request.endpoint.path}")
            # Only names of the table get here, so there is an end to them.
            offer = self._offers[name] = _Offer(candidates, is_auto=request.model == AUTO)
        return offer


def _mode_for(request: ModelRequest, mode: Mode, candidates: Sequence[Candidate], own_keys: Container[str]) -> Mode:
    """How a call may be paid: what a provider keeps is reached with a key of the organization's own, or not at all.

    Raises InvalidRequestError, naming the member, where there is no such key.
    """
    if not request.kept_member or mode is Mode.OWN_KEYS:
        return mode
    if mode is Mode.CREDITS or not any(candidate.provider in own_keys for candidate in candidates):
        raise InvalidRequestError(
            request.kept_member,
            "is about what a provider keeps for the holder of a key, and the platform's keys are everybody's: "
            "send the content itself, or use an own provider key",
        )
    return Mode.OWN_KEYS


class _Offer:
    """The candidates of a model on an endpoint, and their tries on credit in the order of configuration."""

    def __init__(self, candidates: Sequence[Candidate], *, is_auto: bool) -> None:
        self.candidates = candidates
        # True where nothing but the order of configuration is configured.
        self.is_plain = not is_auto and all(candidate.weight is None for candidate in candidates)
        self.on_credit = tuple(PlannedAttempt(each, Funding.CREDITS) for each in candidates[:ATTEMPTS_MAX])
