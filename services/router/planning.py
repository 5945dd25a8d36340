"""Puts together what decides a call's tries: the table of models, the policy, keys, health, prices and chance."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import ModelRequest
from services.router.health import Health, Way
from services.router.key_ring import KeyRing
from services.router.ordering import Order, Preference, PriceOf, in_order
from services.router.routing import AUTO, Candidate, Mode, PlannedAttempt, RoutingTable, plan
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse

# Nothing but the order of configuration.
_PLAIN = Preference()


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
        self._known: dict[tuple[str, str], Sequence[Candidate]] = {}

    def plan(
        self, request: ModelRequest, grant: ResolveKeyResponse, preference: Preference
    ) -> Sequence[PlannedAttempt]:
        """The tries in order; at least one. Raises a DomainError when there is nothing that may be tried."""
        candidates = self._candidates(request)
        if request.model == AUTO:
            preference = replace(preference, order=self._auto_order)
        now = self._clock()
        if preference == _PLAIN and self._health.is_untroubled(now) and not _is_weighted(candidates):
            ordered: Sequence[Candidate] = candidates
        else:
            ordered = in_order(
                candidates,
                preference,
                standing_of=lambda candidate: self._health.standing(candidate, now),
                price_of=self._price_of,
                draw=self._draw,
            )
        return plan(
            ordered,
            Mode(int(grant.project_mode)),
            self._key_ring.own_key_names(grant) if grant.provider_keys else {},
            credit_available=grant.credit_available,
            wait_of=lambda planned: self._health.wait(Way.of(planned), now),
        )

    def _candidates(self, request: ModelRequest) -> Sequence[Candidate]:
        """Those that offer the model on this endpoint. Raises a DomainError when there are none."""
        name = (request.model, request.endpoint.name)
        candidates = self._known.get(name)
        if candidates is None:
            offers = self._table.candidates(request.model)
            candidates = tuple(each for each in offers if request.endpoint.name in each.endpoints)
            if not candidates:
                raise InvalidRequestError("model", f"'{request.model}' is not offered on {request.endpoint.path}")
            # Only names of the table get here, so there is an end to them.
            self._known[name] = candidates
        return candidates


def _is_weighted(candidates: Sequence[Candidate]) -> bool:
    return any(candidate.weight is not None for candidate in candidates)
