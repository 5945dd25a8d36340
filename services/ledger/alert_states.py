"""How the state of an alert rule follows from what is measured. Pure."""

from dataclasses import dataclass
from decimal import Context, Decimal
from enum import IntEnum
from fractions import Fraction

# What is shown and stored of a value; what is compared is exact.
VALUE_DECIMALS = 12
# Wider than any sum of pico-USD.
_WIDE = Context(prec=60)


class AlertState(IntEnum):
    """How a rule stands. The numbers are those of `tollgate.ledger.v1.AlertState`."""

    OK = 1
    FIRING = 2
    RESOLVED = 3


class AlertComparison(IntEnum):
    """On which side of the threshold a rule fires. The numbers are those of `tollgate.ledger.v1.AlertComparison`."""

    ABOVE = 1
    BELOW = 2


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


def rounded(value: Fraction) -> Decimal:
    """The value as it is shown, rounded half to even."""
    return _WIDE.scaleb(Decimal(round(value * 10**VALUE_DECIMALS)), -VALUE_DECIMALS)
