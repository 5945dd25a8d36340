"""Sums are exact, breakdowns add up, and their order depends on nothing but what they say."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.reporting.periods import Timeline, timeline_for
from services.reporting.summaries import (
    FIGURES,
    ActivitySums,
    BreakdownRow,
    Dimension,
    Figures,
    FiguresRow,
    percentage,
    summarize,
)

PERIODS = 3
huge = st.integers(0, 10**30)
figures = st.builds(Figures, **dict.fromkeys(FIGURES, huge))
words = st.sampled_from(["", "a", "b"])
rows = st.builds(
    FiguresRow,
    period=st.integers(0, PERIODS - 1),
    funding=st.sampled_from([1, 2]),
    model=words,
    provider=words,
    group=words,
    figures=figures,
)


def three_days(*, idle: bool) -> Timeline:
    dates = {"from_date": "2026-05-18", "to_date": "2026-05-20"} if idle else {"from_date": "", "to_date": ""}
    as_of = datetime(2026, 5, 20, tzinfo=UTC)
    return timeline_for(days="3", **dates, timezone="", granularity="", as_of=as_of)


def a_row(**fields: Any) -> FiguresRow:
    ordinary = FiguresRow(
        period=0, funding=1, model="gpt-4o", provider="openai", group="", figures=Figures(request_count=1)
    )
    return replace(ordinary, **fields)


def sums_of(some: list[FiguresRow]) -> ActivitySums:
    return ActivitySums(some, some, some)


def one_by_one(parts: list[Figures]) -> Figures:
    total = Figures()
    for part in parts:
        total = Figures(*(one + other for one, other in zip(total, part, strict=True)))
    return total


@given(st.lists(rows, max_size=12), st.sampled_from(Dimension))
def test_nothing_is_lost_and_nothing_counted_twice(some: list[FiguresRow], dimension: Dimension) -> None:
    days = summarize(three_days(idle=True), sums_of(some), dimension)

    assert one_by_one([day.figures.total for day in days]) == one_by_one([row.figures for row in some])
    for day in days:
        split = day.figures
        assert one_by_one([split.credits, split.own_keys]) == split.total
        assert one_by_one([row.figures.total for row in day.by_model]) == split.total
        if dimension is Dimension.MODEL:
            assert day.by_group == []
        else:
            assert one_by_one([row.figures.total for row in day.by_group]) == split.total


@given(st.lists(rows, max_size=8), st.randoms(), st.sampled_from(Dimension))
def test_the_order_of_rows_does_not_matter(some: list[FiguresRow], random: Any, dimension: Dimension) -> None:
    shuffled = random.sample(some, len(some))

    assert summarize(three_days(idle=True), sums_of(shuffled), dimension) == summarize(
        three_days(idle=True), sums_of(some), dimension
    )


def test_sums_beyond_what_a_double_can_count_stay_exact() -> None:
    row = a_row(figures=Figures(cost_pico=2**53 + 1))

    (day,) = summarize(three_days(idle=False), sums_of([row, row]), Dimension.MODEL)

    assert day.figures.total.cost_pico == 2**54 + 2


def test_idle_periods_are_left_out_unless_they_are_shown() -> None:
    row = a_row(period=1)

    assert [day.label for day in summarize(three_days(idle=False), sums_of([row]), Dimension.MODEL)] == ["2026-05-19"]
    assert [
        day.figures.total.request_count for day in summarize(three_days(idle=True), sums_of([row]), Dimension.MODEL)
    ] == [
        0,
        1,
        0,
    ]


def ids(breakdown: list[BreakdownRow]) -> list[tuple[str, str]]:
    return [(row.id, row.provider) for row in breakdown]


def test_the_dearest_comes_first_then_the_busiest_then_the_name() -> None:
    some = [
        a_row(model="b"),
        a_row(model="a", provider="z"),
        a_row(model="a", provider="y"),
        a_row(model="busy", figures=Figures(request_count=2)),
        a_row(model="dear", figures=Figures(request_count=1, cost_pico=1)),
    ]

    (day,) = summarize(three_days(idle=False), sums_of(some), Dimension.MODEL)

    assert ids(day.by_model) == [("dear", "openai"), ("busy", "openai"), ("a", "y"), ("a", "z"), ("b", "openai")]


def test_a_breakdown_by_provider_joins_models_and_one_by_key_joins_providers() -> None:
    some = [a_row(model="a", group="k1"), a_row(model="b", group="k1"), a_row(model="a", provider="azure", group="k2")]

    (by_provider,) = summarize(three_days(idle=False), sums_of(some), Dimension.PROVIDER)
    (by_key,) = summarize(three_days(idle=False), sums_of(some), Dimension.API_KEY)

    assert ids(by_provider.by_group) == [("openai", "openai"), ("azure", "azure")]
    assert ids(by_key.by_group) == [("k1", ""), ("k2", "")]


def test_parts_of_nothing_are_no_percentage() -> None:
    assert percentage(0, 0) == 0
    assert percentage(1, 3) == 100 / 3
    assert percentage(3, 3) == 100
