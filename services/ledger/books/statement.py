"""What an organization used in a period and what became of its balance. Pure."""

import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from services.common.errors import InvalidRequestError
from services.common.money import PICO_PER_USD
from services.ledger.books.journal import OWN, Account, EntryKind, Postings
from services.ledger.pricing import Funding, Line

PERIOD_DAYS_MAX = 366
PICO_PER_CENT = PICO_PER_USD // 100
_MONTH = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days in UTC, both included."""

    first: date
    last: date

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """Exclusive."""
        return datetime.combine(self.last, time(), UTC) + timedelta(days=1)


def period_from_text(*, period: str, first: str, last: str) -> Period:
    """A month, or from one day to another. Raises InvalidRequestError, naming the parameter."""
    if period:
        if first or last:
            raise InvalidRequestError("period", "must be left out where from and to are given")
        return _month(period)
    if not first and not last:
        raise InvalidRequestError("period", "is needed, such as 2026-03, or from and to")
    days = Period(_day("from", first), _day("to", last))
    if days.last < days.first:
        raise InvalidRequestError("to", f"must not be before from, got {first} to {last}")
    if (days.last - days.first).days >= PERIOD_DAYS_MAX:
        raise InvalidRequestError("to", f"must be at most {PERIOD_DAYS_MAX} days from from, both included")
    return days


def _month(text: str) -> Period:
    match = _MONTH.fullmatch(text)
    year, month = map(int, match.groups()) if match else (0, 0)
    # The year 9999 has no next one to end in.
    if not (1 <= year < 9999 and 1 <= month <= 12):
        raise InvalidRequestError("period", f"must be a month such as 2026-03, got '{text[:64]}'")
    return Period(date(year, month, 1), date(year, month, monthrange(year, month)[1]))


def _day(name: str, text: str) -> date:
    try:
        if not _DAY.fullmatch(text) or text >= "9999":
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(name, f"must be a day such as 2026-03-01, got '{text[:64]}'") from None


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of usage, in pico-USD."""

    gross_pico: int
    # After discounts.
    net_pico: int
    # What of it credits paid.
    charged_pico: int

    @property
    def discount_pico(self) -> int:
        return self.gross_pico - self.net_pico


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """What was used of one kind."""

    provider: str
    model: str
    funding: Funding
    line: Line
    quantity: int
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSheet:
    """How the balance moved in a period, in pico-USD. What calls cost is what nothing else explains."""

    opening_pico: int
    granted_prepaid_pico: int
    granted_promotional_pico: int
    corrected_pico: int
    refunded_pico: int
    expired_pico: int
    closing_pico: int

    @property
    def usage_pico(self) -> int:
        added = self.granted_prepaid_pico + self.granted_promotional_pico + self.corrected_pico
        return self.opening_pico + added - self.refunded_pico - self.expired_pico - self.closing_pico


def balance_sheet(opening_pico: int, closing_pico: int, movements: Mapping[EntryKind, Postings]) -> BalanceSheet:
    """From the sums of what was booked beside usage, by kind of entry and account."""

    def moved(kind: EntryKind) -> int:
        return sum(movements.get(kind, {}).get(account, 0) for account in OWN)

    granted = movements.get(EntryKind.GRANT, {})
    return BalanceSheet(
        opening_pico=opening_pico,
        granted_prepaid_pico=-granted.get(Account.PAYMENT, 0),
        granted_promotional_pico=-granted.get(Account.PROMOTION, 0),
        corrected_pico=moved(EntryKind.CORRECTION),
        refunded_pico=-moved(EntryKind.REFUND),
        expired_pico=-moved(EntryKind.EXPIRY),
        closing_pico=closing_pico,
    )


def total_of(lines: Iterable[StatementLine]) -> Amounts:
    amounts = [line.amounts for line in lines]
    return Amounts(
        sum(one.gross_pico for one in amounts),
        sum(one.net_pico for one in amounts),
        sum(one.charged_pico for one in amounts),
    )


def rounded_to_cents(pico: int) -> int:
    """The nearest whole cents, in pico-USD; the even ones of two that are equally near."""
    cents, rest = divmod(pico, PICO_PER_CENT)
    return (cents + (2 * rest > PICO_PER_CENT or (2 * rest == PICO_PER_CENT and cents % 2))) * PICO_PER_CENT
