"""What records of a day add up to. Pure: the same records in any order give the same sums.

Unlike figures by the hour, which expire by plan, these are kept for ever: statements are made of them.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.ledger.pricing import CostLine, Line
from services.ledger.records import PricedRecord
from services.ledger.rollups import FIGURES, Figures, HourKey

# Storage has a price of its own, which is in no version.
NO_PRICE_VERSION = 0
_US_PER_DAY = 86_400_000_000


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


def money_by_day(records: Iterable[PricedRecord]) -> dict[MoneyKey, Sums]:
    """The cost lines of these records, by everything that a statement tells apart."""
    money: dict[MoneyKey, Sums] = {}
    # What lines of like records have in common is put together once: there are many lines, and few keys.
    of_calls: dict[tuple[object, ...], dict[tuple[object, ...], Sums]] = {}
    for one in records:
        record = one.record
        call = (
            record.organization_id,
            record.start_us // _US_PER_DAY,
            record.provider,
            record.model,
            record.funding,
            one.price_version_id,
        )
        of_lines = of_calls.get(call)
        if of_lines is None:
            of_lines = of_calls[call] = {}
        for line in one.priced.lines:
            of_line = (line.line, line.charged, line.discount)
            sums = of_lines.get(of_line)
            if sums is None:
                sums = of_lines[of_line] = money.setdefault(_money_key(one, line), [0] * len(MONEY))
            sums[0] += 1
            sums[1] += line.quantity
            sums[2] += line.list_cost_pico
            sums[3] += line.cost_pico
    return money


def _money_key(one: PricedRecord, line: CostLine) -> MoneyKey:
    record = one.record
    version_id = None if line.line is Line.DATA_STORAGE else one.price_version_id
    return MoneyKey(
        record.organization_id,
        record.start_time.date(),
        record.provider,
        record.model,
        record.funding,
        line.line,
        line.charged,
        NO_PRICE_VERSION if version_id is None else version_id,
        line.discount,
    )


def records_by_day(hours: Mapping[HourKey, Figures]) -> dict[DayKey, Sums]:
    """The records behind these figures, by organization and day."""
    days: dict[DayKey, Sums] = {}
    for key, figures in hours.items():
        sums = days.setdefault(DayKey(key.organization_id, key.hour.date()), [0] * len(RECORDS))
        for place, figure in enumerate(_FIGURES_OF_RECORDS):
            sums[place] += figures[figure]
    return days
