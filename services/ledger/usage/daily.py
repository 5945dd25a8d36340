"""What records of a day add up to. Pure: the same records in any order give the same sums.

Unlike figures by the hour, which expire by plan, these are kept for ever: statements are made of them.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.ledger.books.journal import Charge
from services.ledger.pricing import Line
from services.ledger.usage.records import PricedRecord
from services.ledger.usage.rollups import FIGURES, Figures, HourKey

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


def money_by_day(groups: Mapping[HourKey, Iterable[PricedRecord]]) -> dict[MoneyKey, Sums]:
    """The cost lines of these records, by everything that a statement tells apart."""
    money: dict[MoneyKey, Sums] = {}
    for key, records in groups.items():
        # The rest of a line's key is that of its group, and is put together once.
        of_lines: dict[tuple[int | None, Line, bool, Decimal], Sums] = {}
        for one in records:
            version_id = one.price_version_id
            for line, quantity, _, discount, cost, list_cost, charged in one.priced.lines:
                of_line = (version_id, line, charged, discount)
                sums = of_lines.get(of_line)
                if sums is None:
                    sums = of_lines[of_line] = money.setdefault(_money_key(key, *of_line), [0] * len(MONEY))
                sums[0] += 1
                sums[1] += quantity
                sums[2] += list_cost
                sums[3] += cost
    return money


def _money_key(key: HourKey, version_id: int | None, line: Line, charged: bool, discount: Decimal) -> MoneyKey:
    return MoneyKey(
        key.organization_id,
        key.hour.date(),
        key.provider,
        key.model,
        key.funding,
        line,
        charged,
        NO_PRICE_VERSION if version_id is None or line is Line.DATA_STORAGE else version_id,
        discount,
    )


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
