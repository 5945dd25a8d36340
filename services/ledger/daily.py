"""What records of a day add up to. Pure: the same records in any order give the same sums.

Unlike figures by the hour, which expire by plan, these are kept for ever: statements are made of them.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.ledger.pricing import Line
from services.ledger.records import PricedRecord
from services.ledger.rollups import FIGURES, Figures, HourKey

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
    price_version_id: int
    discount: Decimal


# What cost lines add up to, in the order of the sums in `money_by_day`.
MONEY = ("line_count", "quantity", "list_cost_pico", "cost_pico", "charged_list_cost_pico", "charged_pico")


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


def money_by_day(records: Iterable[PricedRecord]) -> dict[MoneyKey, Sums]:
    """The cost lines of these records, by everything that a statement tells apart."""
    money: dict[MoneyKey, Sums] = {}
    for one in records:
        record, version_id = one.record, one.price_version_id or NO_PRICE_VERSION
        day = record.start_time.date()
        for line in one.priced.lines:
            key = MoneyKey(
                record.organization_id,
                day,
                record.provider,
                record.model,
                record.funding,
                line.line,
                NO_PRICE_VERSION if line.line is Line.DATA_STORAGE else version_id,
                line.discount,
            )
            sums = money.get(key)
            if sums is None:
                sums = money[key] = [0] * len(MONEY)
            sums[0] += 1
            sums[1] += line.quantity
            sums[2] += line.list_cost_pico
            sums[3] += line.cost_pico
            if line.charged:
                sums[4] += line.list_cost_pico
                sums[5] += line.cost_pico
    return money


def records_by_day(hours: Mapping[HourKey, Figures]) -> dict[DayKey, Sums]:
    """The records behind these figures, by organization and day."""
    days: dict[DayKey, Sums] = {}
    for key, figures in hours.items():
        sums = days.setdefault(DayKey(key.organization_id, key.hour.date()), [0] * len(RECORDS))
        for place, figure in enumerate(_FIGURES_OF_RECORDS):
            sums[place] += figures[figure]
    return days
