"""How long things are kept, and when they have to be gone. Pure: no clock, no database.

**Seen.** A record is seen for the days of its organization's plan, to the microsecond; an hour of figures until all of
it is past. Queries see to that, with the function `ledger.kept_since`, so it holds from the moment a plan changes.

**Kept.** Detail lies in partitions by the day it started on and by *class*: the days it is kept, so that a partition
expires as a whole, once the last moment of its day is past. That is at most 24 hours after its first. Free and Pro have
classes of their own; Enterprise terms are rounded up to five days, so that 365 terms need no 365 classes, and are gone
at most five days late, of the seven that are promised.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from typing import NamedTuple

from services.ledger.accounts.accounts import RETENTION_DAYS, RETENTION_DAYS_MAX

DAY = timedelta(days=1)
# A term that is not a plan's is rounded up to a multiple of this.
CLASS_STEP_DAYS = 5
# How far the times in a record's id and at its start may be apart: the age at which records are refused.
APART_DAYS_MAX = 35
# Keys are not split by organization's term, so all stay as long as the longest needs them: the detail's time, and then
# 40 days in which a repeat is still recognised.
KEY_DAYS = RETENTION_DAYS_MAX + APART_DAYS_MAX + 40
# Records that were set aside are there for an operator for so long, whosever they are: that may be what is wrong.
REJECTED_DAYS = 40


class Kept(IntEnum):
    """What is kept. Numbers are stored."""

    PAYLOAD = 1
    DETAIL = 2
    HOURS = 3
    KEYS = 4


class Place(NamedTuple):
    """Where detail and payloads lie: a partition of each."""

    retention_class: int
    # In UTC, of the start of the calls.
    day: date


class Sums(NamedTuple):
    """What records of an organization's day add up to, wherever that is asked."""

    record_count: int = 0
    unpriced_count: int = 0
    cost_pico: int = 0
    saved_pico: int = 0
    charged_pico: int = 0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*map(sum, zip(self, other, strict=True)))

    def minus(self, other: "Sums") -> "Sums":
        return Sums(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An organization's day whose records are not what was recorded. It must not expire until somebody knows why."""

    organization_id: str
    day: date
    kind: Kept
    expected: Sums
    found: Sums


def retention_class(retention_days: int) -> int:
    """The class of what is kept for so many days: that many, or a few more."""
    if retention_days in RETENTION_DAYS.values():
        return retention_days
    return -(-retention_days // CLASS_STEP_DAYS) * CLASS_STEP_DAYS


def end_of(day: date) -> datetime:
    """The first moment of the next day."""
    return datetime.combine(day, time(), UTC) + DAY


def expiry_of(place: Place) -> datetime:
    """From when on nobody sees any of what lies there, but for those who were promised longer since."""
    return end_of(place.day) + place.retention_class * DAY


def expiry_of_keys(day: date) -> datetime:
    """From when on no repeat of a record whose id is of this day needs to be recognised."""
    return end_of(day) + KEY_DAYS * DAY
