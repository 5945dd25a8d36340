"""What a window of an alert rule is made of: whole days and hours in UTC, calls at its edges; and when it is looked at.

Pure.
"""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """From a moment until before another."""

    start: datetime
    end: datetime

    @property
    def is_empty(self) -> bool:
        return self.start >= self.end


class Days(NamedTuple):
    """From a day until before another."""

    first: date
    end: date


class WindowParts(NamedTuple):
    """Every moment of a window is in exactly one of these."""

    # None when no whole day is in the window.
    days: Days | None
    # Of whole hours.
    hours: tuple[Span, ...]
    # Parts of hours.
    edges: tuple[Span, ...]


def window_parts(window: Span) -> WindowParts:
    """The fewest rows that add up to the window."""
    hours, edges = _whole(window, _HOUR)
    if hours.is_empty:
        return WindowParts(None, (), edges)
    days, rest = _whole(hours, _DAY)
    whole_days = None if days.is_empty else Days(days.start.date(), days.end.date())
    return WindowParts(whole_days, rest, edges)


def next_due(due: datetime, now: datetime, interval: timedelta) -> datetime:
    """When a rule that was due is due again. What was missed is not made up for: a window looks at the present."""
    missed = (now - due) // interval
    return due + (missed + 1) * interval


def _whole(span: Span, unit: timedelta) -> tuple[Span, tuple[Span, ...]]:
    """What of a span is whole units, and what is left of it before and after."""
    start = _EPOCH - (_EPOCH - span.start) // unit * unit
    end = _EPOCH + (span.end - _EPOCH) // unit * unit
    if start >= end:
        return Span(start, start), () if span.is_empty else (span,)
    sides = (Span(span.start, start), Span(end, span.end))
    return Span(start, end), tuple(side for side in sides if not side.is_empty)
