from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.alerts.alert_states import (
    AlertComparison,
    AlertCondition,
    AlertState,
    Measurement,
    next_state,
    rounded,
)

OK, FIRING, RESOLVED = AlertState.OK, AlertState.FIRING, AlertState.RESOLVED


def a_condition(
    threshold: str = "5", *, comparison: AlertComparison = AlertComparison.ABOVE, at_least: int = 0
) -> AlertCondition:
    return AlertCondition(comparison=comparison, threshold=Decimal(threshold), request_count_min=at_least)


def measured(value: Fraction | int | None, request_count: int = 100) -> Measurement:
    return Measurement(None if value is None else Fraction(value), request_count)


@pytest.mark.parametrize(
    ("before", "is_met", "after"),
    [
        (OK, True, FIRING),
        (OK, False, OK),
        (OK, None, OK),
        (FIRING, True, FIRING),
        (FIRING, False, RESOLVED),
        (FIRING, None, FIRING),
        (RESOLVED, True, FIRING),
        (RESOLVED, False, RESOLVED),
        (RESOLVED, None, RESOLVED),
    ],
)
def test_a_state_follows_from_the_one_before_and_the_verdict(
    before: AlertState, is_met: bool | None, after: AlertState
) -> None:
    assert next_state(before, is_met) is after


def test_a_value_on_the_threshold_fires_on_neither_side() -> None:
    assert a_condition("5").is_met(measured(5)) is False
    assert a_condition("5", comparison=AlertComparison.BELOW).is_met(measured(5)) is False


def test_a_value_is_compared_exactly_not_as_it_is_shown() -> None:
    third = Fraction(100, 3)

    assert a_condition("33.333333333333").is_met(measured(third)) is True
    assert a_condition("33.333333333334").is_met(measured(third)) is False


def test_a_pico_dollar_more_than_the_threshold_fires() -> None:
    assert a_condition("0.1").is_met(measured(Fraction(10**11 + 1, 10**12))) is True
    assert a_condition("0.1").is_met(measured(Fraction(10**11, 10**12))) is False


def test_with_fewer_calls_than_asked_for_there_is_no_verdict() -> None:
    condition = a_condition("5", at_least=10)

    assert condition.is_met(measured(50, request_count=9)) is None
    assert condition.is_met(measured(50, request_count=10)) is True


def test_where_nothing_could_be_measured_there_is_no_verdict() -> None:
    assert a_condition("0").is_met(measured(None, request_count=0)) is None


def test_too_little_traffic_can_be_told_from_none_measured() -> None:
    assert a_condition("1", comparison=AlertComparison.BELOW).is_met(measured(0, request_count=0)) is True


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Fraction(100, 3), "33.333333333333"),
        (Fraction(1, 2 * 10**12), "0E-12"),
        (Fraction(3, 2 * 10**12), "2E-12"),
        (Fraction(10**30 + 1), f"{10**30 + 1}.000000000000"),
    ],
)
def test_a_value_is_shown_rounded_once_half_to_even(value: Fraction, shown: str) -> None:
    assert str(rounded(value)) == shown


values = st.one_of(st.none(), st.fractions(min_value=0, max_value=200))
measurements = st.lists(st.builds(Measurement, values, st.integers(0, 20)), max_size=30)
conditions = st.builds(
    AlertCondition,
    comparison=st.sampled_from(AlertComparison),
    threshold=st.decimals(0, 200, places=3),
    request_count_min=st.integers(0, 20),
)


@given(conditions, measurements)
def test_whatever_is_measured_firing_and_resolving_alternate_and_each_has_its_reason(
    condition: AlertCondition, series: list[Measurement]
) -> None:
    state, changes = OK, []
    for one in series:
        after = next_state(state, condition.is_met(one))
        if after is not state:
            assert one.value is not None
            assert one.request_count >= condition.request_count_min
            assert condition.is_met(one) is (after is FIRING)
            changes.append(after)
        state = after

    assert changes == [FIRING if number % 2 == 0 else RESOLVED for number in range(len(changes))]
    assert state is (changes[-1] if changes else OK)
