"""Counts by bucket tell percentiles within 2 %."""

from hypothesis import given
from hypothesis import strategies as st

from services.common.latency_buckets import bucket_of, milliseconds_of

durations = st.integers(0, 86_400_000)


@given(durations.filter(lambda milliseconds: milliseconds >= 1))
def test_what_stands_for_a_duration_is_within_one_and_a_half_percent(milliseconds: int) -> None:
    told = milliseconds_of(bucket_of(milliseconds))

    assert abs(told - milliseconds) <= 0.015 * milliseconds


@given(durations, durations)
def test_longer_durations_are_never_in_lower_buckets(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))

    assert bucket_of(shorter) <= bucket_of(longer)


def test_no_time_at_all_is_in_the_first_bucket() -> None:
    assert bucket_of(0) == bucket_of(1) == 0
