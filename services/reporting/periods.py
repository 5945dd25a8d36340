"""Which stretches of time a question is about. Pure: no clock, no network, no database.

A period is a day or an hour of somebody's wall clock, as a half-open interval in UTC. Periods follow each other without
gap or overlap, also where clocks change; a day that a zone skipped is empty.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from services.common.errors import InvalidRequestError
from services.reporting.parameters import whole_number

DAYS_DEFAULT = 7
DAYS_MAX = 365
# The longest that any plan shows.
RETENTION_DAYS_MAX = 365
# A leap year from its first day to its last.
RANGE_DAYS_MAX = 366
# Far enough from the ends of the calendar for every sum of dates here.
DATE_MIN, DATE_MAX = date(1970, 1, 2), date(9998, 12, 31)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Granularity(Enum):
    """How long a period is."""

    DAILY = "daily"
    HOURLY = "hourly"


@dataclass(frozen=True, slots=True)
class Period:
    """A day or an hour: what it is called, and from when to when (exclusive) it lasts, in UTC."""

    label: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Timeline:
    """Periods in ascending order, each beginning where the one before ends. Empty where retention kept none."""

    periods: tuple[Period, ...]
    # Whether periods without calls are shown.
    shows_idle: bool

    @property
    def asked_by(self) -> str:
        """The parameter to change for a shorter one."""
        return "from" if self.shows_idle else "days"

    @property
    def start(self) -> datetime:
        return self.periods[0].start

    @property
    def end(self) -> datetime:
        return self.periods[-1].end

    @property
    def boundaries(self) -> list[datetime]:
        """Where each period starts."""
        return [period.start for period in self.periods]

    @property
    def split_hours(self) -> list[datetime]:
        """The hours of UTC that a boundary falls into: sums by hour of UTC cannot tell what is on which side."""
        edges = (*self.boundaries, self.end) if self.periods else ()
        return sorted({floor_hour(edge) for edge in edges if edge != floor_hour(edge)})

    @property
    def whole_days(self) -> tuple[datetime, datetime]:
        """From which midnight in UTC to which each day is within one period: figures by the day will do there."""
        if all(edge == floor_day(edge) for edge in self.boundaries[1:]):
            first = floor_day(self.start + DAY - _MICROSECOND)
            return first, max(first, floor_day(self.end))
        return self.start, self.start

    @property
    def is_days_in_utc(self) -> bool:
        """Whether each period is one: then its number is that of days since the first."""
        days = all(period.end - period.start == DAY for period in self.periods)
        return days and self.start == floor_day(self.start)

    def since(self, moment: datetime) -> "Timeline":
        """The same without periods that were over by then."""
        return Timeline(tuple(period for period in self.periods if period.end > moment), self.shows_idle)


def timeline_for(
    *, days: str, from_date: str, to_date: str, timezone: str, granularity: str, as_of: datetime
) -> Timeline:
    """The periods that the parameters ask for; "" is a parameter left out.

    Raises InvalidRequestError, naming the parameter as REST spells it.
    """
    zone = zone_named(timezone)
    size = granularity_named(granularity)
    day_count = whole_number("days", days, default=DAYS_DEFAULT, least=1, most=DAYS_MAX)
    if from_date or to_date:
        first, last = _date_range(from_date, to_date)
    else:
        last = as_of.astimezone(zone).date()
        first = last - (day_count - 1) * DAY

    day_periods = (_day(first + number * DAY, zone) for number in range((last - first).days + 1))
    if size is Granularity.HOURLY:
        periods = tuple(hour for day in day_periods for hour in _hours(day, zone))
    else:
        periods = tuple(day_periods)
    return Timeline(periods, shows_idle=bool(from_date))


def zone_named(name: str) -> ZoneInfo:
    """The zone of an IANA name. "" is UTC."""
    if name and name not in _zone_names():
        raise InvalidRequestError("timezone", f"must be an IANA name such as Europe/Zurich, got '{name}'.")
    return ZoneInfo(name or "UTC")


def granularity_named(name: str) -> Granularity:
    """ "" is daily."""
    try:
        return Granularity(name or "daily")
    except ValueError:
        raise InvalidRequestError("granularity", f"must be 'daily' or 'hourly', got '{name}'.") from None


def floor_hour(moment: datetime) -> datetime:
    """The full hour of UTC at or before a moment."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """The midnight in UTC at or before a moment."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def last_days(days: str, as_of: datetime, *, shows_idle: bool, default: int = DAYS_DEFAULT) -> Timeline:
    """Days in UTC: so many, today included. Raises InvalidRequestError."""
    count = whole_number("days", days, default=default, least=1, most=DAYS_MAX)
    first = as_of.astimezone(UTC).date() - (count - 1) * DAY
    utc = zone_named("")
    return Timeline(tuple(_day(first + number * DAY, utc) for number in range(count)), shows_idle)


def one_period(start: datetime, end: datetime) -> Timeline:
    """A stretch of time as a whole. Empty when it ends before it begins."""
    return Timeline((Period("", start, end),) if start < end else (), shows_idle=False)


def _date_range(from_date: str, to_date: str) -> tuple[date, date]:
    first, last = _date("from", from_date, needed_by="to"), _date("to", to_date, needed_by="from")
    if last < first:
        raise InvalidRequestError("to", f"must not be before from ({from_date}), got '{to_date}'.")
    if (last - first).days >= RANGE_DAYS_MAX:
        raise InvalidRequestError("to", f"must be within {RANGE_DAYS_MAX} days of from ({from_date}), got '{to_date}'.")
    return first, last


def _date(name: str, value: str, *, needed_by: str) -> date:
    if not value:
        raise InvalidRequestError(name, f"is needed with {needed_by}.")
    return date_named(name, value)


def date_named(name: str, value: str) -> date:
    """Raises InvalidRequestError, naming the parameter."""
    try:
        parsed = date.fromisoformat(value) if _DATE.fullmatch(value) else None
    except ValueError:
        parsed = None
    if parsed is None:
        raise InvalidRequestError(name, f"must be a day written YYYY-MM-DD, got '{value}'.")
    if not DATE_MIN <= parsed <= DATE_MAX:
        raise InvalidRequestError(name, f"must be from {DATE_MIN} to {DATE_MAX}, got '{value}'.")
    return parsed


def _day(day: date, zone: ZoneInfo) -> Period:
    return Period(day.isoformat(), _midnight(day, zone), _midnight(day + DAY, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a day begins. A midnight that happens twice counts the first time; one that is skipped, when it is."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _hours(day: Period, zone: ZoneInfo) -> Iterator[Period]:
    """The hours of a day's wall clock. One is shorter where a clock changes by less than an hour."""
    start = day.start
    while start < day.end:
        shown = start.astimezone(zone)
        past_the_hour = timedelta(minutes=shown.minute, seconds=shown.second)
        end = min(start + HOUR - past_the_hour, day.end)
        yield Period(shown.isoformat(timespec="seconds"), start, end)
        start = end


@cache
def _zone_names() -> frozenset[str]:
    """The names of the pinned zone data, and not whatever files the machine has beside it."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())
