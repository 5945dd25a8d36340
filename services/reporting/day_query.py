"""The SQL over what is counted by the day: durations and failures.

Timelines are days in UTC. A day that retention cuts in two is read from detail.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import TIMESTAMP, BigInteger, ColumnElement, Date, Select, cast, func, literal, not_, select, union_all

from services.reporting.figures_query import FiguresSource, conditions, period_of, seen
from services.reporting.views import failure_day, latency_day, usage_record

# The numbers of `tollgate.ledger.v1.Outcome` that have no duration: REFUSED and UNKNOWN.
_WITHOUT_LATENCY = (8, 9)
_FAILURE_KEY = ("status", "error_type", "provider", "model")


def durations(source: FiguresSource, keys: Sequence[str]) -> Select[Any]:
    """How many calls took how long: the keys, and two packed histograms, or null where there are no calls.

    To the last byte, then to the first. The key `period` is the number of a day.
    """
    branches = [_durations_of_days(source, keys)]
    if source.has_a_partial_day:
        branches.append(_durations_of_calls(source, keys))
    rows = union_all(*branches).subquery()
    groups = [rows.c[name] for name in keys]
    histograms = (func.numeric_send(func.sum(rows.c[name])) for name in ("latency", "first_token"))
    return select(*groups, *histograms).group_by(*groups)


def failures(source: FiguresSource) -> Select[Any]:
    """How often calls failed how: the number of the day, status, error type, provider, model and the count."""
    branches = [_of_days(source, failure_day, _FAILURE_KEY, failure_day.c.failure_count)]
    if source.has_a_partial_day:
        calls = _of_calls(source, _FAILURE_KEY, literal(1, BigInteger))
        branches.append(calls.where(not_(usage_record.c.status.between(200, 299))))
    return _summed(branches, ("period", *_FAILURE_KEY))


def _summed(branches: Sequence[Select[Any]], keys: Sequence[str]) -> Select[Any]:
    rows = union_all(*branches).subquery()
    groups = [rows.c[name] for name in keys]
    return select(*groups, cast(func.sum(rows.c.count), BigInteger)).group_by(*groups)


def _durations_of_days(source: FiguresSource, keys: Sequence[str]) -> Select[Any]:
    columns = latency_day.c
    return (
        select(
            *_keys(source, keys, _moment_of_day(columns.day), latency_day),
            columns.latency_histogram.label("latency"),
            columns.time_to_first_token_histogram.label("first_token"),
        )
        .select_from(seen(latency_day, source.retention))
        .where(*_within_whole_days(source, columns.day), *conditions(columns, source.view))
    )


def _durations_of_calls(source: FiguresSource, keys: Sequence[str]) -> Select[Any]:
    columns = usage_record.c
    groups = _keys(source, keys, columns.start_time, usage_record)
    return (
        select(
            *groups,
            _histogram_of(columns.latency_ms).label("latency"),
            _histogram_of(columns.time_to_first_token_ms).label("first_token"),
        )
        .select_from(seen(usage_record, source.retention))
        .where(
            *_within_partial_day(source),
            *conditions(columns, source.view),
            columns.outcome.not_in(_WITHOUT_LATENCY),
        )
        .group_by(*groups)
    )


def _histogram_of(milliseconds: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.sum(func.ledger.histogram_of(func.ledger.latency_bucket(milliseconds)))


def _of_days(source: FiguresSource, view: Any, keys: Sequence[str], count: ColumnElement[Any]) -> Select[Any]:
    columns = _keys(source, ("period", *keys), _moment_of_day(view.c.day), view)
    within = _within_whole_days(source, view.c.day)
    statement = select(*columns, count.label("count"))
    return statement.select_from(seen(view, source.retention)).where(*within, *conditions(view.c, source.view))


def _of_calls(source: FiguresSource, keys: Sequence[str], count: ColumnElement[Any]) -> Select[Any]:
    columns = _keys(source, ("period", *keys), usage_record.c.start_time, usage_record)
    statement = select(*columns, count.label("count"))
    within = _within_partial_day(source)
    return statement.select_from(seen(usage_record, source.retention)).where(
        *within, *conditions(usage_record.c, source.view)
    )


def _keys(source: FiguresSource, names: Sequence[str], moment: ColumnElement[Any], view: Any) -> list[Any]:
    period = period_of(moment, source.timeline)
    return [(period if name == "period" else view.c[name]).label(name) for name in names]


def _moment_of_day(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.timezone("UTC", cast(day, TIMESTAMP))


def _within_whole_days(source: FiguresSource, day: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    return [
        day >= source.timeline.start.date(),
        day < source.timeline.end.date(),
        day >= func.timezone("UTC", source.first_whole_day),
    ]


def _within_partial_day(source: FiguresSource) -> list[ColumnElement[bool]]:
    start_time, day = usage_record.c.start_time, usage_record.c.request_day
    return [
        start_time >= source.first_hour,
        start_time < source.first_whole_day,
        start_time >= source.timeline.start,
        start_time < source.timeline.end,
        source.places.between(usage_record.c, source.timeline.start.date(), source.timeline.end.date()),
        day == cast(func.timezone("UTC", source.first_hour), Date),
    ]
