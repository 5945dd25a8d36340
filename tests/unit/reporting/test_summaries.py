"""Sums are exact, and the order of breakdowns depends on nothing but what they say."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.reporting.periods import Timeline, timeline_for
from services.reporting.summaries import (
    FIGURES,
    ActivitySums,
    Breakdown,
    Figures,
    FiguresRow,
    groups_of,
    percentage,
    summarize,
)

PERIODS = 3
huge = st.integers(0, 10**30)
figures = st.builds(Figures, **dict.fromkeys(FIGURES, huge))
periods = st.integers(0, PERIODS - 1)
words = st.sampled_from(["", "a", "b"])
rows = st.builds(
    FiguresRow, period=periods, funding=st.sampled_from([1, 2]), group=words, provider=words, figures=figures
)
breakdowns = st.builds(Breakdown, period=periods, id=words, provider=words, request_count=huge, cost_pico=huge)


def three_days(*, idle: bool) -> Timeline:
    dates = {"from_date": "2026-05-18", "to_date": "2026-05-20"} if idle else {"from_date": "", "to_date": ""}
    as_of = datetime(2026, 5, 20, tzinfo=UTC)
    return timeline_for(days="3", **dates, timezone="", granularity="", as_of=as_of)


def one_by_one(parts: list[Figures]) -> Figures:
    total = Figures()
    for part in parts:
        total = Figures(*(one + other for one, other in zip(total, part, strict=True)))
    return total


def a_breakdown(**fields: Any) -> Breakdown:
    ordinary: dict[str, Any] = dict.fromkeys(Breakdown._fields, 0) | {
        "id": "gpt-4o",
        "provider": "openai",
        "request_count": 1,
    }
    return Breakdown(**(ordinary | fields))


@given(st.lists(rows, max_size=12))
def test_nothing_is_lost_and_nothing_counted_twice(some: list[FiguresRow]) -> None:
    days = summarize(three_days(idle=True), ActivitySums(some, [], []))

    assert one_by_one([day.figures.total for day in days]) == one_by_one([row.figures for row in some])
    for day in days:
        assert one_by_one([day.figures.credits, day.figures.own_keys]) == day.figures.total


@given(st.lists(rows, max_size=12))
def test_groups_are_what_their_rows_add_up_to(some: list[FiguresRow]) -> None:
    groups = groups_of(some)

    assert [group for group, _ in groups] == sorted({(row.period, row.group, row.provider) for row in some})
    for group, split in groups:
        mine = [row.figures for row in some if (row.period, row.group, row.provider) == group]
        assert split.total == one_by_one(mine)


@given(st.lists(breakdowns, max_size=8, unique_by=lambda row: row[:3]), st.randoms())
def test_the_order_of_rows_does_not_matter(some: list[Breakdown], random: Any) -> None:
    shuffled = random.sample(some, len(some))
    timeline = three_days(idle=True)

    assert summarize(timeline, ActivitySums([], shuffled, shuffled)) == summarize(
        timeline, ActivitySums([], some, some)
    )


def test_sums_beyond_what_a_double_can_count_stay_exact() -> None:
    row = FiguresRow(period=0, funding=1, figures=Figures(cost_pico=2**53 + 1))

    (day,) = summarize(three_days(idle=False), ActivitySums([row, row], [], []))

    assert day.figures.total.cost_pico == 2**54 + 2


def test_idle_periods_are_left_out_unless_they_are_shown() -> None:
    sums = ActivitySums([FiguresRow(period=1, funding=1, figures=Figures(request_count=1))], [], [])

    assert [day.label for day in summarize(three_days(idle=False), sums)] == ["2026-05-19"]
    assert [day.figures.total.request_count for day in summarize(three_days(idle=True), sums)] == [0, 1, 0]


def test_the_dearest_comes_first_then_the_busiest_then_the_name() -> None:
    some = [
        a_breakdown(id="b"),
        a_breakdown(id="a", provider="z"),
        a_breakdown(id="a", provider="y"),
        a_breakdown(id="busy", request_count=2),
        a_breakdown(id="dear", cost_pico=1),
    ]

    day, *_ = summarize(three_days(idle=True), ActivitySums([], some, []))

    ids = [(row.id, row.provider) for row in day.by_model]
    assert ids == [("dear", "openai"), ("busy", "openai"), ("a", "y"), ("a", "z"), ("b", "openai")]


def test_parts_of_nothing_are_no_percentage() -> None:
    assert percentage(0, 0) == 0
    assert percentage(1, 3) == 100 / 3
    assert percentage(3, 3) == 100
