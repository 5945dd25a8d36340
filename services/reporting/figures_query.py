"""The SQL that sums figures.

From days where periods are days in UTC, from hours elsewhere, and from detail what hours of UTC cannot tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Date,
    Select,
    String,
    TableClause,
    all_,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.selectable import FromClause, Subquery

from services.reporting.detail_figures import figures_of_calls
from services.reporting.periods import DAY, Timeline, floor_day, floor_hour
from services.reporting.places import Places
from services.reporting.retention import Retention, figures_kept_since
from services.reporting.view import View
from services.reporting.views import organization, usage_day, usage_hour

MOMENT = TIMESTAMP(timezone=True)
MOMENTS = ARRAY(MOMENT)
_MICROSECOND = timedelta(microseconds=1)


# Names of columns, in order.
Names = tuple[str, ...]
# One answer holds no more groups of figures; an answer made of them stays below the largest message.
FIGURES_ROWS_MAX = 30_000


class Statement(NamedTuple):
    """A statement and its parameters."""

    select: Select[Any]
    parameters: Mapping[str, Any] = MappingProxyType({})
    # True for one that was made once and comes again with other parameters: the database keeps its plan.
    is_prepared: bool = False


class Shape(NamedTuple):
    """What a statement over figures of one organization is made by, so that there are few of them."""

    # The columns that restrict it.
    filters: Names
    # Whether each period is a day in UTC.
    is_daily: bool
    reads_days: bool
    reads_hours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresSource:
    """Which calls to sum. Its timeline has periods."""

    view: View
    timeline: Timeline
    # Retention counts back from here.
    as_of: datetime
    # Of the one organization that is looked at; None where each has its own.
    retention: Retention | None
    # Where the calls lie that hours of UTC cannot tell apart.
    places: Places

    def sums(self, keys: Names, figures: Names, funding: int = 0, figures_of_funding: Names = ()) -> Statement:
        """One row per group: its keys, its figures, then those of one funding only. One group too many is cut off.

        The number of a period, from 0, is the key `period`.
        """
        if self._is_prepared:
            shape, parameters = self._shape_and_parameters()
            select_sums = _prepared_sums(shape, keys, figures, funding, figures_of_funding)
            return Statement(select_sums, parameters, is_prepared=True)
        rows = self._rows(_keys_for(keys, figures_of_funding), figures)
        return Statement(_sums(rows, keys, figures, funding, figures_of_funding))

    def sums_of_sets(self, sets: tuple[Names, ...], figures: Names) -> Statement:
        """The sums of several sets of keys in one pass: the number of the set, all keys (null if not its), figures."""
        if self._is_prepared:
            shape, parameters = self._shape_and_parameters()
            return Statement(_prepared_sums_of_sets(shape, sets, figures), parameters, is_prepared=True)
        return Statement(_sums_of_sets(self._rows(_keys_in(sets), figures), sets, figures))

    @property
    def _is_prepared(self) -> bool:
        """True for most questions: those about one organization that need no detail."""
        return self.retention is not None and not self.timeline.split_hours

    def _shape_and_parameters(self) -> tuple[Shape, dict[str, Any]]:
        """Days are read where all of a day is within the timeline and shown, hours before and after."""
        start, end = self.timeline.start, self.timeline.end
        first_midnight, end_midnight = self.timeline.whole_days
        if self.retention is not None:
            first_hour = floor_hour(self.retention.kept_since)
            start, first_midnight = max(start, first_hour), max(first_midnight, _next_midnight(first_hour))
        reads_days = first_midnight < end_midnight
        shape = Shape(
            filters=tuple(self.view.filters),
            is_daily=self.timeline.is_days_in_utc,
            reads_days=reads_days,
            reads_hours=not reads_days or (first_midnight, end_midnight) != (start, end),
        )
        return shape, self.view.filters | {
            "start": start,
            "end": end,
            "first_midnight": first_midnight,
            "end_midnight": end_midnight,
            "first_day": first_midnight.date(),
            "end_day": end_midnight.date(),
            "day_zero": self.timeline.start.date(),
            "boundaries": self.timeline.boundaries,
        }

    def _rows(self, keys: Sequence[str], figures: Sequence[str]) -> Subquery:
        """Every call of the timeline is in exactly one of the rows. They are not summed yet."""
        first, end = self.timeline.whole_days
        branches = []
        if first < end:
            branches.append(self._days(keys, figures))
        if (first, end) != (self.timeline.start, self.timeline.end) or self.has_a_partial_day:
            branches.append(self._hours(keys, figures))
        if self.timeline.split_hours:
            branches.append(self._detail(keys, figures))
        return (branches[0] if len(branches) == 1 else union_all(*branches)).subquery()

    @property
    def has_a_partial_day(self) -> bool:
        """Whether retention may cut a day of the timeline in two."""
        if self.retention is None:
            return True
        first_hour = floor_hour(self.retention.kept_since)
        return first_hour > self.timeline.start and first_hour != floor_day(first_hour)

    def _days(self, keys: Sequence[str], figures: Sequence[str]) -> Select[Any]:
        day = usage_day.c.day
        first, end = self.timeline.whole_days
        return self._select(usage_day, _midnight(day), keys, figures).where(
            day >= first.date(), day < end.date(), day >= func.timezone("UTC", self.first_whole_day)
        )

    def _hours(self, keys: Sequence[str], figures: Sequence[str]) -> Select[Any]:
        hour = usage_hour.c.hour
        conditions = [hour >= self.timeline.start, hour < self.timeline.end, hour >= self.first_hour]
        first, end = self.timeline.whole_days
        if first < end:
            conditions.append(or_(hour < first, hour < self.first_whole_day, hour >= end))
        if self.timeline.split_hours:
            conditions.append(hour != all_(literal(self.timeline.split_hours, MOMENTS)))
        return self._select(usage_hour, hour, keys, figures).where(*conditions)

    def _detail(self, keys: Sequence[str], figures: Sequence[str]) -> Select[Any]:
        """The calls in hours that a boundary falls into."""
        hours = self.timeline.split_hours
        calls = figures_of_calls(self.places, hours[0].date(), hours[-1].date())
        moment = calls.c.start_time
        return self._select(calls, moment, keys, figures).where(
            moment >= self.timeline.start,
            moment < self.timeline.end,
            moment >= self.first_hour,
            func.date_trunc("hour", moment, "UTC") == any_(literal(self.timeline.split_hours, MOMENTS)),
        )

    def _select(
        self, view: TableClause | Subquery, moment: ColumnElement[Any], keys: Sequence[str], figures: Sequence[str]
    ) -> Select[Any]:
        """Keys and figures of the rows that the view is about."""
        columns = [_key(view.c, name, moment, self.timeline) for name in keys]
        statement = select(*columns, *(view.c[name].label(name) for name in figures))
        return statement.select_from(seen(view, self.retention)).where(*conditions(view.c, self.view))

    @property
    def first_hour(self) -> ColumnElement[Any]:
        """From when on figures are shown."""
        if self.retention is None:
            return figures_kept_since(self.as_of)
        return literal(floor_hour(self.retention.kept_since), MOMENT)

    @property
    def first_whole_day(self) -> ColumnElement[Any]:
        """From which midnight on all figures of each day are shown."""
        if self.retention is None:
            return func.date_trunc("day", figures_kept_since(self.as_of) + literal(DAY - _MICROSECOND), "UTC")
        return literal(_next_midnight(floor_hour(self.retention.kept_since)), MOMENT)


def _next_midnight(moment: datetime) -> datetime:
    """The midnight in UTC at or after a moment."""
    return floor_day(moment + DAY - _MICROSECOND)


def seen(view: FromClause, retention: Retention | None) -> FromClause:
    """The view, with its organizations where each has a retention of its own."""
    if retention is not None:
        return view
    return view.join(organization, organization.c.organization_id == view.c.organization_id)


def conditions(columns: ReadOnlyColumnCollection[str, Any], view: View) -> list[ColumnElement[bool]]:
    """What restricts the rows to those that are looked at."""
    return [columns[name] == value for name, value in view.filters.items()]


def period_of(moment: ColumnElement[Any], timeline: Timeline) -> ColumnElement[int]:
    """The number of the period that a moment of the timeline is in."""
    return func.width_bucket(moment, literal(timeline.boundaries, MOMENTS)) - 1


def _key(
    columns: ReadOnlyColumnCollection[str, Any], name: str, moment: ColumnElement[Any], timeline: Timeline
) -> ColumnElement[Any]:
    return (period_of(moment, timeline) if name == "period" else columns[name]).label(name)


# Making a statement takes longer than the answer to a small one. The values of these come as parameters.
@lru_cache(maxsize=256)
def _prepared_sums(shape: Shape, keys: Names, figures: Names, funding: int, figures_of_funding: Names) -> Select[Any]:
    rows = _prepared_rows(shape, _keys_for(keys, figures_of_funding), figures)
    return _sums(rows, keys, figures, funding, figures_of_funding)


@lru_cache(maxsize=256)
def _prepared_sums_of_sets(shape: Shape, sets: tuple[Names, ...], figures: Names) -> Select[Any]:
    return _sums_of_sets(_prepared_rows(shape, _keys_in(sets), figures), sets, figures)


def _prepared_rows(shape: Shape, keys: Names, figures: Names) -> Subquery:
    """What `FiguresSource._rows` selects, of one organization and without parts of hours."""
    branches = []
    if shape.reads_days:
        branches.append(_prepared_days(shape, keys, figures))
    if shape.reads_hours:
        branches.append(_prepared_hours(shape, keys, figures))
    return (branches[0] if len(branches) == 1 else union_all(*branches)).subquery()


def _prepared_days(shape: Shape, keys: Names, figures: Names) -> Select[Any]:
    day = usage_day.c.day
    period = _number_of_day(day) if shape.is_daily else _number_of_period(_midnight(day))
    statement = _prepared_select(usage_day, period, shape, keys, figures)
    return statement.where(day >= bindparam("first_day", type_=Date), day < bindparam("end_day", type_=Date))


def _prepared_hours(shape: Shape, keys: Names, figures: Names) -> Select[Any]:
    """The hours that are in none of the days."""
    hour = usage_hour.c.hour
    period = _number_of_day(cast(func.timezone("UTC", hour), Date)) if shape.is_daily else _number_of_period(hour)
    moments = ("start", "first_midnight", "end_midnight", "end") if shape.reads_days else ("start", "end")
    edges = [bindparam(name, type_=MOMENT) for name in moments]
    # Each bounded by itself, or the database may plan to look at all hours in between.
    stretches = [and_(hour >= first, hour < end) for first, end in zip(edges[::2], edges[1::2], strict=True)]
    return _prepared_select(usage_hour, period, shape, keys, figures).where(or_(*stretches))


def _prepared_select(
    view: TableClause, period: ColumnElement[Any], shape: Shape, keys: Names, figures: Names
) -> Select[Any]:
    shown = [(period if name == "period" else view.c[name]).label(name) for name in keys]
    statement = select(*shown, *(view.c[name].label(name) for name in figures))
    return statement.where(*(view.c[name] == bindparam(name) for name in shape.filters))


def _number_of_day(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return day - bindparam("day_zero", type_=Date)


def _number_of_period(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.width_bucket(moment, bindparam("boundaries", type_=MOMENTS)) - 1


def _midnight(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.timezone("UTC", cast(day, TIMESTAMP))


def _keys_for(keys: Names, figures_of_funding: Names) -> Names:
    return (*keys, "funding") if figures_of_funding and "funding" not in keys else keys


def _keys_in(sets: tuple[Names, ...]) -> Names:
    return tuple(dict.fromkeys(name for names in sets for name in names))


def _sums(rows: Subquery, keys: Names, figures: Names, funding: int, figures_of_funding: Names) -> Select[Any]:
    # Named, or statements that differ in their sums alone would pass for one another.
    sums = [_sum(rows.c[name]).label(name) for name in figures]
    sums += [
        _sum(case((rows.c.funding == funding, rows.c[name]), else_=0), name).label(f"{name}_of_funding")
        for name in figures_of_funding
    ]
    statement = select(*map(_shown, (rows.c[name] for name in keys)), *sums)
    return statement.group_by(*(rows.c[name] for name in keys)).limit(FIGURES_ROWS_MAX + 1)


def _sums_of_sets(rows: Subquery, sets: tuple[Names, ...], figures: Names) -> Select[Any]:
    columns = [rows.c[name] for name in _keys_in(sets)]
    grouping = func.grouping_sets(*(tuple_(*(rows.c[name] for name in names)) for names in sets))
    sums = (_sum(rows.c[name]).label(name) for name in figures)
    return select(func.grouping(*columns).label("keys_of_set"), *columns, *sums).group_by(grouping)


def _sum(column: ColumnElement[Any], name: str = "") -> ColumnElement[Any]:
    """Counts stay whole numbers of the machine; tokens and money may outgrow those."""
    total = func.sum(column)
    return cast(total, BigInteger) if (name or column.key or "").endswith("_count") else total


def _shown(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(column, String).label(column.name) if column.name == "api_key_id" else column
