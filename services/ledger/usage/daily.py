"""What records of a day add up to. Pure: the same records in any order give the same sums.

Unlike figures by the hour, which expire by plan, these are kept for ever: statements are made of them.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.ledger.books.journal import Charge
from services.ledger.pricing import Line
from services.ledger.usage.rollups import FIGURES, Figures, Hour, HourKey

# Storage has a price of its own, which is in no version.
NO_PRICE_VERSION = 0


class MoneyKey(NamedTuple):
    """What a day's money is kept by."""

    organization_id: str
    # In UTC, of the start of the call.
    day: date
    provider: str
    model: str
    funding: int
    line: int
    # Whether credits paid.
    charged: bool
    price_version_id: int
    discount: Decimal


# What cost lines add up to, in the order of the sums in `money_by_day`.
MONEY = ("line_count", "quantity", "list_cost_pico", "cost_pico")


class DayKey(NamedTuple):
    """An organization's day."""

    organization_id: str
    day: date


# What records add up to, in the order of the sums in `records_by_day`.
RECORDS = ("record_count", "unpriced_count", "cost_pico", "saved_pico", "charged_pico")
_FIGURES_OF_RECORDS = [
    FIGURES.index(name) for name in ("request_count", "unpriced_count", "cost_pico", "saved_pico", "charged_pico")
]

Sums = list[int]

_DATA_STORAGE = Line.DATA_STORAGE


def money_by_day(hours: Mapping[HourKey, Hour]) -> dict[MoneyKey, Sums]:
    """The cost lines of these records, by everything that a statement tells apart."""
    days: dict[tuple[str, date, str, str, int], list[Hour]] = {}
    for key, hour in hours.items():
        day = (key.organization_id, key.hour.date(), key.provider, key.model, key.funding)
        days.setdefault(day, []).append(hour)
    money: dict[MoneyKey, Sums] = {}
    for day, parts in days.items():
        for (version_id, line, charged, discount), sums in _lines_of(parts).items():
            money[MoneyKey(*day, line, charged, version_id, discount)] = sums
    return money


def _lines_of(hours: Iterable[Hour]) -> dict[tuple[int, Line, bool, Decimal], Sums]:
    lines: dict[tuple[int, Line, bool, Decimal], Sums] = {}
    for hour in hours:
        for (version_id, line, charged, discount), added in hour.lines.items():
            if version_id is None or line is _DATA_STORAGE:
                version_id = NO_PRICE_VERSION  # noqa: PLW2901 as the day knows it
            key = (version_id, line, charged, discount)
            sums = lines.get(key)
            lines[key] = added if sums is None else [one + more for one, more in zip(sums, added, strict=True)]
    return lines


def charges_in(money: Mapping[MoneyKey, Sums]) -> dict[str, Charge]:
    """What each organization's credits pay for. Organizations that pay nothing are left out."""
    charges: dict[str, list[int]] = {}
    for key, (_, _, list_cost, cost) in money.items():
        if key.charged and list_cost:
            due = charges.setdefault(key.organization_id, [0, 0])
            due[0] += cost
            due[1] += list_cost
    return {organization_id: Charge(*due) for organization_id, due in charges.items()}


def records_by_day(hours: Mapping[HourKey, Figures]) -> dict[DayKey, Sums]:
    """The records behind these figures, by organization and day."""
    days: dict[DayKey, Sums] = {}
    for key, figures in hours.items():
        sums = days.setdefault(DayKey(key.organization_id, key.hour.date()), [0] * len(RECORDS))
        for place, figure in enumerate(_FIGURES_OF_RECORDS):
            sums[place] += figures[figure]
    return days
