"""The SQL that sums figures.

From days where periods are days in UTC, from hours elsewhere, and from detail what hours of UTC cannot tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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


class Statement(NamedTuple):
    """A statement and its parameters."""

    select: Select[Any]
    parameters: Mapping[str, Any] = MappingProxyType({})


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
        """One row per group: its keys, its figures, then those of one funding only.

        The number of a period, from 0, is the key `period`.
        """
        if self._needs_days_only:
            select_sums = _sums_of_days(self._filters, keys, figures, funding, figures_of_funding)
            return Statement(select_sums, self._parameters)
        rows = self._rows(_keys_for(keys, figures_of_funding), figures)
        return Statement(_sums(rows, keys, figures, funding, figures_of_funding))

    def sums_of_sets(self, sets: tuple[Names, ...], figures: Names) -> Statement:
        """The sums of several sets of keys in one pass: the number of the set, all keys (null if not its), figures."""
        if self._needs_days_only:
            return Statement(_sets_of_days(self._filters, sets, figures), self._parameters)
        return Statement(_sums_of_sets(self._rows(_keys_in(sets), figures), sets, figures))

    @property
    def _needs_days_only(self) -> bool:
        """True for most questions. Their statements are made once and kept: making one takes as long as its answer."""
        whole = self.timeline.whole_days == (self.timeline.start, self.timeline.end)
        return whole and self.retention is not None and not self.has_a_partial_day

    @property
    def _filters(self) -> Names:
        return tuple(name for name, value in asdict(self.view).items() if value is not None)

    @property
    def _parameters(self) -> dict[str, Any]:
        filters = {name: value for name, value in asdict(self.view).items() if value is not None}
        first, end = self.timeline.start.date(), self.timeline.end.date()
        return filters | {"first_day": first, "end_day": end, "boundaries": self.timeline.boundaries}

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
        return literal(floor_day(floor_hour(self.retention.kept_since) + DAY - _MICROSECOND), MOMENT)


def seen(view: FromClause, retention: Retention | None) -> FromClause:
    """The view, with its organizations where each has a retention of its own."""
    if retention is not None:
        return view
    return view.join(organization, organization.c.organization_id == view.c.organization_id)


def conditions(columns: ReadOnlyColumnCollection[str, Any], view: View) -> list[ColumnElement[bool]]:
    """What restricts the rows to those that are looked at."""
    return [columns[name] == value for name, value in asdict(view).items() if value is not None]


def period_of(moment: ColumnElement[Any], timeline: Timeline) -> ColumnElement[int]:
    """The number of the period that a moment of the timeline is in."""
    return func.width_bucket(moment, literal(timeline.boundaries, MOMENTS)) - 1


def _key(
    columns: ReadOnlyColumnCollection[str, Any], name: str, moment: ColumnElement[Any], timeline: Timeline
) -> ColumnElement[Any]:
    return (period_of(moment, timeline) if name == "period" else columns[name]).label(name)


@lru_cache(maxsize=256)
def _sums_of_days(filters: Names, keys: Names, figures: Names, funding: int, figures_of_funding: Names) -> Select[Any]:
    rows = _rows_of_days(filters, _keys_for(keys, figures_of_funding), figures)
    return _sums(rows, keys, figures, funding, figures_of_funding)


@lru_cache(maxsize=256)
def _sets_of_days(filters: Names, sets: tuple[Names, ...], figures: Names) -> Select[Any]:
    return _sums_of_sets(_rows_of_days(filters, _keys_in(sets), figures), sets, figures)


def _rows_of_days(filters: Names, keys: Names, figures: Names) -> Subquery:
    """Days of one organization, whose values come as parameters."""
    columns, day = usage_day.c, usage_day.c.day
    period = func.width_bucket(_midnight(day), bindparam("boundaries", type_=MOMENTS)) - 1
    shown = [(period if name == "period" else columns[name]).label(name) for name in keys]
    return (
        select(*shown, *(columns[name].label(name) for name in figures))
        .where(
            day >= bindparam("first_day", type_=Date),
            day < bindparam("end_day", type_=Date),
            *(columns[name] == bindparam(name) for name in filters),
        )
        .subquery()
    )


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
    return select(*map(_shown, (rows.c[name] for name in keys)), *sums).group_by(*(rows.c[name] for name in keys))


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
