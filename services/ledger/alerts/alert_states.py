"""How the state of an alert rule follows from what is measured. Pure."""

from dataclasses import dataclass
from decimal import Context, Decimal
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

from services.common.money import PICO_PER_USD

# What is shown and stored of a value; what is compared is exact.
VALUE_DECIMALS = 12
# Wider than any sum of pico-USD.
_WIDE = Context(prec=60)


class AlertState(IntEnum):
    """How a rule stands. The numbers are those of `tollgate.ledger.v1.AlertState`."""

    OK = 1
    FIRING = 2
    RESOLVED = 3


class AlertMetric(IntEnum):
    """What is measured. The numbers are those of `tollgate.ledger.v1.AlertMetric`."""

    ERROR_RATE = 1
    LATENCY = 2
    COST = 3
    TOKEN_COUNT = 4
    REQUEST_COUNT = 5


class AlertComparison(IntEnum):
    """On which side of the threshold a rule fires. The numbers are those of `tollgate.ledger.v1.AlertComparison`."""

    ABOVE = 1
    BELOW = 2


class WindowFigures(NamedTuple):
    """What the calls of a window add up to."""

    request_count: int
    # Answered with a 2xx.
    success_count: int
    # In and out.
    token_count: int
    cost_pico: int


class Durations(NamedTuple):
    """How long the calls of a window took, those that have a duration."""

    call_count: int
    # The percentile that was asked for; None of no calls.
    latency_ms: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a metric was in a window, in its own unit."""

    # None where nothing could be measured: there is no error rate of no calls.
    value: Fraction | None
    request_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCondition:
    """When a rule fires."""

    comparison: AlertComparison
    threshold: Decimal
    # With fewer there is no verdict.
    request_count_min: int

    def is_met(self, measured: Measurement) -> bool | None:
        """None where too little was measured to tell."""
        if measured.value is None or measured.request_count < self.request_count_min:
            return None
        threshold = Fraction(self.threshold)
        if self.comparison is AlertComparison.ABOVE:
            return measured.value > threshold
        return measured.value < threshold


def next_state(state: AlertState, is_met: bool | None) -> AlertState:
    """The state after a verdict. Without one it stays as it is."""
    if is_met is None:
        return state
    if is_met:
        return AlertState.FIRING
    return AlertState.RESOLVED if state is AlertState.FIRING else state


def measurement(metric: AlertMetric, figures: WindowFigures) -> Measurement:
    """The metric, which is not the latency, from what there is to be measured."""
    request_count = figures.request_count
    match metric:
        case AlertMetric.ERROR_RATE:
            errors = 100 * (request_count - figures.success_count)
            return Measurement(Fraction(errors, request_count) if request_count else None, request_count)
        case AlertMetric.COST:
            return Measurement(Fraction(figures.cost_pico, PICO_PER_USD), request_count)
        case AlertMetric.TOKEN_COUNT:
            return Measurement(Fraction(figures.token_count), request_count)
        case AlertMetric.REQUEST_COUNT:
            return Measurement(Fraction(request_count), request_count)
        case AlertMetric.LATENCY:
            raise ValueError("durations are no sums")


def latency_measurement(durations: Durations) -> Measurement:
    value = None if durations.latency_ms is None else Fraction(durations.latency_ms)
    return Measurement(value, durations.call_count)


def rounded(value: Fraction) -> Decimal:
    """The value as it is shown, rounded half to even."""
    return _WIDE.scaleb(Decimal(round(value * 10**VALUE_DECIMALS)), -VALUE_DECIMALS)
