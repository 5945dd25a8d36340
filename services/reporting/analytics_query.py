"""The SQL of the analytics family: four sums in one pass over the figures."""

from collections.abc import Iterable, Sequence
from typing import Any

from services.reporting.analytics import Analytics, Counts, Grouping
from services.reporting.figures_query import FiguresSource, Statement

# Calls refused before any attempt do not count.
_FIGURES = ("request_count", "refused_count", "success_count")


def analytics_sums(source: FiguresSource, grouping: Grouping) -> Statement:
    """By each thing alone, and by day and what was asked for."""
    return source.sums_of_sets((*((one.value,) for one in Grouping), ("period", grouping.value)), _FIGURES)


def analytics_from_rows(rows: Iterable[Sequence[Any]], grouping: Grouping) -> Analytics:
    """The order of the keys is that of `analytics_sums`: those of `Grouping`, then the period."""
    analytics = Analytics()
    names = [one.value for one in Grouping]
    for row in rows:
        values: Sequence[Any] = row[1:]
        keys, period, (requests, refused, successful) = values[: len(names)], values[len(names)], values[-3:]
        counts = Counts(requests - refused, successful)
        if not counts.requests:
            continue
        if period is None:
            ((one, key),) = ((one, key) for one, key in zip(Grouping, keys, strict=True) if key is not None)
            analytics.by_group[one][key] = counts
        else:
            key = keys[names.index(grouping.value)]
            analytics.by_day_and_key[period, key] = counts
            analytics.by_day[period] = analytics.by_day[period].plus(counts)
    return analytics
