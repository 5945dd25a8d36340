"""Periods tile the time that was asked for, whatever clocks do."""

from datetime import UTC, date, datetime, timedelta
from importlib import resources
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError
from services.reporting.periods import DATE_MAX, DATE_MIN, Timeline, timeline_for

NOW = datetime(2026, 5, 20, 23, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONES = resources.files("tzdata").joinpath("zones").read_text().split()
zones = st.sampled_from(ZONES)
some_days = st.integers(0, 20).map(timedelta)
dates = st.dates(date(1970, 1, 2), date(2037, 12, 31))


def timeline(**parameters: str) -> Timeline:
    ordinary = dict.fromkeys(("days", "from_date", "to_date", "timezone", "granularity"), "")
    return timeline_for(**(ordinary | parameters), as_of=NOW)


def between(first: str, last: str, **parameters: str) -> Timeline:
    return timeline(from_date=first, to_date=last, **parameters)


@settings(deadline=None)
@given(zones, dates, some_days, st.sampled_from(["daily", "hourly"]))
def test_periods_follow_each_other_without_gap_or_overlap(
    zone: str, first: date, length: timedelta, granularity: str
) -> None:
    last = first + length

    found = between(str(first), str(last), timezone=zone, granularity=granularity)

    assert all(earlier.end == later.start for earlier, later in pairwise(found.periods))
    assert all(period.start <= period.end for period in found.periods)
    days = between(str(first), str(last), timezone=zone)
    assert (found.start, found.end) == (days.start, days.end)
    assert len({period.label for period in found.periods}) == len(found.periods)


@settings(deadline=None)
@given(zones, dates, some_days)
def test_days_begin_when_the_zone_says_that_they_do(zone: str, first: date, length: timedelta) -> None:
    found = between(str(first), str(first + length), timezone=zone)

    assert [period.label for period in found.periods] == [
        str(first + timedelta(days=number)) for number in range(length.days + 1)
    ]
    for period in found.periods:
        if period.start < period.end:  # a day that the zone skipped has no moment
            assert period.start.astimezone(ZoneInfo(zone)).date() == date.fromisoformat(period.label)
            just_before = period.start - timedelta(microseconds=1)
            assert just_before.astimezone(ZoneInfo(zone)).date() < date.fromisoformat(period.label)


@settings(deadline=None)
@given(zones, dates)
def test_hours_are_labelled_with_the_moment_they_begin_and_last_no_longer_than_one(zone: str, day: date) -> None:
    found = between(str(day), str(day), timezone=zone, granularity="hourly")

    for hour in found.periods:
        assert datetime.fromisoformat(hour.label) == hour.start
        assert timedelta(0) < hour.end - hour.start <= HOUR


@settings(deadline=None)
@given(zones, dates, some_days, st.sampled_from(["daily", "hourly"]))
def test_hours_of_utc_are_split_exactly_where_a_boundary_falls_within(
    zone: str, first: date, length: timedelta, granularity: str
) -> None:
    found = between(str(first), str(first + length), timezone=zone, granularity=granularity)

    edges = (*found.boundaries, found.end)
    off_the_hour = [edge for edge in edges if (edge.minute, edge.second) != (0, 0)]
    assert found.split_hours == sorted({edge.replace(minute=0, second=0) for edge in off_the_hour})


@pytest.mark.parametrize(
    ("zone", "day", "hour_count"),
    [
        ("UTC", "2026-03-29", 24),
        ("Europe/Zurich", "2026-03-29", 23),
        ("Europe/Zurich", "2026-10-25", 25),
        ("America/New_York", "2026-11-01", 25),
        ("Asia/Kolkata", "2026-03-29", 24),
        ("Africa/Cairo", "2026-04-24", 23),  # midnight itself is skipped
        ("America/Havana", "2026-11-01", 25),  # the first hour happens twice
    ],
)
def test_a_day_has_as_many_hours_as_its_clocks_show(zone: str, day: str, hour_count: int) -> None:
    (whole,) = between(day, day, timezone=zone).periods
    hours = between(day, day, timezone=zone, granularity="hourly").periods

    assert whole.end - whole.start == hour_count * HOUR
    assert len(hours) == hour_count


def test_the_hour_that_happens_twice_is_told_apart_by_its_offset() -> None:
    labels = [
        hour.label
        for hour in between("2026-10-25", "2026-10-25", timezone="Europe/Zurich", granularity="hourly").periods
    ]

    assert labels[2:4] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_a_clock_that_changes_by_half_an_hour_makes_a_short_hour() -> None:
    found = between("2026-10-04", "2026-10-04", timezone="Australia/Lord_Howe", granularity="hourly")

    assert [hour.label for hour in found.periods[1:4]] == [
        "2026-10-04T01:00:00+10:30",
        "2026-10-04T02:30:00+11:00",
        "2026-10-04T03:00:00+11:00",
    ]


def test_a_day_that_a_zone_skipped_is_empty() -> None:
    skipped = between("2011-12-30", "2011-12-30", timezone="Pacific/Apia").periods[0]

    assert skipped.start == skipped.end


@pytest.mark.parametrize(("zone", "today"), [("UTC", "2026-05-20"), ("Asia/Kolkata", "2026-05-21")])
def test_the_last_days_end_with_today_where_they_are_looked_at(zone: str, today: str) -> None:
    found = timeline(days="3", timezone=zone)

    assert len(found.periods) == 3
    assert found.periods[-1].label == today
    assert found.periods[-1].start <= NOW < found.periods[-1].end


@pytest.mark.parametrize(
    ("zone", "granularity", "is_days"),
    [
        pytest.param("", "", True, id="days in UTC"),
        pytest.param("Europe/London", "", False, id="days of which one began when clocks were an hour ahead"),
        pytest.param("Europe/Zurich", "", False, id="days of another zone"),
        pytest.param("", "hourly", False, id="hours"),
    ],
)
def test_periods_are_numbered_like_days_only_where_each_is_a_day_in_utc(
    zone: str, granularity: str, is_days: bool
) -> None:
    as_of = datetime(2026, 10, 27, 12, tzinfo=UTC)
    found = timeline_for(days="7", from_date="", to_date="", timezone=zone, granularity=granularity, as_of=as_of)

    assert found.is_days_in_utc is is_days


def test_seven_days_in_utc_is_what_is_asked_for_by_asking_nothing() -> None:
    assert timeline() == timeline(days="7", timezone="UTC", granularity="daily")
    assert len(timeline().periods) == 7


def test_idle_periods_are_shown_between_dates_only() -> None:
    assert not timeline(days="3").shows_idle
    assert between("2026-05-01", "2026-05-03").shows_idle


def test_a_year_is_taken_and_a_day_more_is_not() -> None:
    assert len(between("2024-01-01", "2024-12-31").periods) == 366
    with pytest.raises(InvalidRequestError, match="^to "):
        between("2024-01-01", "2025-01-01")


def test_the_first_and_the_last_day_of_all_are_taken_in_every_zone() -> None:
    for zone in ZONES:
        for day in (str(DATE_MIN), str(DATE_MAX)):
            assert between(day, day, timezone=zone, granularity="hourly").periods


def test_what_is_over_by_a_moment_is_cut_off() -> None:
    found = between("2026-05-01", "2026-05-04")

    cut = found.since(datetime(2026, 5, 3, 12, tzinfo=UTC))

    assert [period.label for period in cut.periods] == ["2026-05-03", "2026-05-04"]
    assert found.since(found.end).periods == ()
    assert found.since(found.end).split_hours == []
