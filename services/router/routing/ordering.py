"""In which order the providers of a model are tried. Pure: prices, health and chance are arguments."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from services.router.routing.routing import Candidate, Standing

# Latencies that differ by less count as equal, so that chance alone does not decide.
_LATENCY_STEP = math.log(1.2)


class Order(IntEnum):
    """What decides among providers that are equally preferred and well. Numbered as `ledger.v1.ProviderOrder`."""

    CONFIGURED = 1
    PRICE = 2
    LATENCY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How a project wants its providers ordered."""

    order: Order = Order.CONFIGURED
    # To be tried before all others, the most preferred first.
    providers: tuple[str, ...] = ()


# USD for a token, input and output taken together in whatever ratio; None when it is not known.
PriceOf = Callable[[Candidate], float | None]


def in_order(
    candidates: Sequence[Candidate],
    preference: Preference,
    *,
    standing_of: Callable[[Candidate], Standing],
    price_of: PriceOf,
    draw: Callable[[], float],
) -> tuple[Candidate, ...]:
    """The candidates, best first.

    What cools down comes last. Then the project's preference decides, then whether many calls fail, then price or
    latency. Among equals calls are shared by weight where there are weights (`draw` gives numbers from 0 to 1), and go
    in the order of configuration where there are none.
    """
    if len(candidates) < 2:
        return tuple(candidates)
    is_weighted = any(candidate.weight is not None for candidate in candidates)

    def rank(position_and_candidate: tuple[int, Candidate]) -> tuple[bool, int, bool, float, float]:
        position, candidate = position_and_candidate
        standing = standing_of(candidate)
        return (
            standing.is_cooling,
            _place(preference.providers, candidate.provider),
            standing.is_degraded,
            _cost(candidate, standing, preference.order, price_of),
            _lot(candidate, draw) if is_weighted else position,
        )

    return tuple(candidate for _, candidate in sorted(enumerate(candidates), key=rank))


def _place(preferred: Sequence[str], provider: str) -> int:
    return preferred.index(provider) if provider in preferred else len(preferred)


def _cost(candidate: Candidate, standing: Standing, order: Order, price_of: PriceOf) -> float:
    """What there should be little of."""
    if order is Order.PRICE:
        price = price_of(candidate)
        return math.inf if price is None else price
    if order is Order.LATENCY:
        # One that nobody has called lately goes first, or it would never be known.
        seconds = standing.latency_seconds
        return -math.inf if seconds is None else round(math.log(max(seconds, 0.001)) / _LATENCY_STEP)
    return 0.0


def _lot(candidate: Candidate, draw: Callable[[], float]) -> float:
    """A waiting time drawn with the weight as its rate: the shortest is a candidate's with a chance like its weight."""
    weight = 1.0 if candidate.weight is None else candidate.weight
    return -math.log(1.0 - draw()) / weight if weight > 0 else math.inf
