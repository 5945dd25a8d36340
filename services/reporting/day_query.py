"""The SQL over what is counted by the day: durations and failures.

Timelines are days in UTC. A day that retention cuts in two is read from detail.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Date,
    Float,
    Integer,
    Select,
    case,
    cast,
    column,
    func,
    literal,
    not_,
    select,
    true,
    union_all,
)
from sqlalchemy.sql.selectable import FromClause

from services.common.latency_buckets import GROWTH
from services.reporting.figures_query import FiguresSource, conditions, period_of, seen
from services.reporting.views import failure_day, latency_day, usage_record

LATENCY, FIRST_TOKEN = "latency", "time_to_first_token"
_COUNTS_OF_KIND = {LATENCY: "latency_counts", FIRST_TOKEN: "time_to_first_token_counts"}
_MILLISECONDS_OF_KIND = {LATENCY: "latency_ms", FIRST_TOKEN: "time_to_first_token_ms"}
# The numbers of `tollgate.ledger.v1.Outcome` that have no duration: REFUSED and UNKNOWN.
_WITHOUT_LATENCY = (8, 9)
_FAILURE_KEY = ("status", "error_type", "provider", "model")


def durations(source: FiguresSource, keys: Sequence[str]) -> Select[Any]:
    """How many calls took how long: the keys, what was measured, the bucket and the count.

    The key `period` is the number of a day.
    """
    branches = [_durations_of_days(source, keys, kind) for kind in _COUNTS_OF_KIND]
    if source.has_a_partial_day:
        branches += [_durations_of_calls(source, keys, kind) for kind in _COUNTS_OF_KIND]
    return _summed(branches, (*keys, "kind", "bucket"))


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


def _durations_of_days(source: FiguresSource, keys: Sequence[str], kind: str) -> Select[Any]:
    counts = latency_day.c[_COUNTS_OF_KIND[kind]]
    # An array whose subscripts are buckets, from the first that holds anything.
    each = func.unnest(counts).table_valued(column("count", Integer), with_ordinality="place").render_derived("each")
    bucket = each.c.place + func.array_lower(counts, 1) - 1
    columns = _keys(source, keys, _moment_of_day(latency_day.c.day), latency_day)
    statement = select(
        *columns, literal(kind).label("kind"), cast(bucket, Integer).label("bucket"), each.c.count.label("count")
    )
    within = _within_whole_days(source, latency_day.c.day)
    return statement.select_from(_seen(source, latency_day).join(each, true())).where(
        *within, *conditions(latency_day.c, source.view), each.c.count > 0
    )


def _durations_of_calls(source: FiguresSource, keys: Sequence[str], kind: str) -> Select[Any]:
    milliseconds = usage_record.c[_MILLISECONDS_OF_KIND[kind]]
    logarithm = func.ln(cast(milliseconds, Float)) / func.ln(literal(GROWTH, Float))
    bucket = case((milliseconds <= 1, 0), else_=cast(func.ceil(logarithm), Integer))
    columns = _keys(source, keys, usage_record.c.start_time, usage_record)
    statement = select(
        *columns, literal(kind).label("kind"), bucket.label("bucket"), literal(1, Integer).label("count")
    )
    return statement.select_from(_seen(source, usage_record)).where(
        *_within_partial_day(source),
        *conditions(usage_record.c, source.view),
        usage_record.c.outcome.not_in(_WITHOUT_LATENCY),
        milliseconds.is_not(None),
    )


def _of_days(source: FiguresSource, view: Any, keys: Sequence[str], count: ColumnElement[Any]) -> Select[Any]:
    columns = _keys(source, ("period", *keys), _moment_of_day(view.c.day), view)
    within = _within_whole_days(source, view.c.day)
    statement = select(*columns, count.label("count"))
    return statement.select_from(_seen(source, view)).where(*within, *conditions(view.c, source.view))


def _of_calls(source: FiguresSource, keys: Sequence[str], count: ColumnElement[Any]) -> Select[Any]:
    columns = _keys(source, ("period", *keys), usage_record.c.start_time, usage_record)
    statement = select(*columns, count.label("count"))
    within = _within_partial_day(source)
    return statement.select_from(_seen(source, usage_record)).where(*within, *conditions(usage_record.c, source.view))


def _seen(source: FiguresSource, view: FromClause) -> FromClause:
    return seen(view, source.retention)


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
