"""What remains of each grant. Pure.

Charges change balances only. Which grant they took from follows: of each account, what ends first is spent first, so
what is gone of an account since its credits were last settled is gone from the first of them. They are settled whenever
their order may change: when credit is added, taken out or ends. No call has to wait for that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.ledger.books.journal import SPENDABLE, Account, Balances

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Credit that was not spent when it was last settled."""

    # Of the journal entry that added it.
    sequence: int
    grant_id: str
    # PREPAID or PROMOTIONAL.
    account: Account
    remaining_pico: int
    # Exclusive. None for credit that does not end.
    expire_time: datetime | None

    def has_ended(self, now: datetime) -> bool:
        return self.expire_time is not None and self.expire_time <= now


def settled(granted: Iterable[Credit], balances: Balances) -> list[Credit]:
    """The same credits with what remains of each, those of one account in the order in which they are spent."""
    every = list(granted)
    by_account = {account: [credit for credit in every if credit.account is account] for account in SPENDABLE}
    return [
        credit
        for account, own in by_account.items()
        for credit in _settled(sorted(own, key=_spending_order), balances.get(account, 0))
    ]


def _settled(ordered: Sequence[Credit], balance_pico: int) -> list[Credit]:
    # What is spent last is known first: it is whole as long as the balance covers it.
    left = balance_pico
    remaining: list[Credit] = []
    for credit in reversed(ordered):
        kept = min(credit.remaining_pico, left)
        remaining.append(replace(credit, remaining_pico=kept))
        left -= kept
    return remaining[::-1]


def ended(granted: Iterable[Credit], now: datetime) -> list[Credit]:
    """Those that ended, the earliest first."""
    return sorted((credit for credit in granted if credit.has_ended(now)), key=_spending_order)


def taken(due: Iterable[Credit], free_pico: int) -> list[tuple[Credit, int]]:
    """What is taken of each in turn, where only so much may be taken of all. Those that keep all are left out."""
    parts = []
    for credit in due:
        part = min(credit.remaining_pico, free_pico)
        free_pico -= part
        if part:
            parts.append((credit, part))
    return parts


def without_ended(balances: Balances, left: Iterable[Credit], now: datetime) -> dict[Account, int]:
    """The balances as they are once the end of what has ended is booked. The credits are settled."""
    current = dict(balances)
    for credit in ended(left, now):
        current[credit.account] -= credit.remaining_pico
    return current


def _spending_order(credit: Credit) -> tuple[datetime, int]:
    return credit.expire_time or _NEVER, credit.sequence
