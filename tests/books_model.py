"""The books of one organization in plain Python: what the ledger's should be. Shares no code with it.

Every credit is a row, every charge is taken from the rows at once, and what is owed is a number. Amounts are pico-USD.
"""

from dataclasses import dataclass, field
from datetime import datetime

# The numbers of `tollgate.ledger.v1.LedgerAccount`.
PREPAID, PROMOTIONAL, RECEIVABLE, REVENUE, DISCOUNT, PAYMENT, PROMOTION, ADJUSTMENT, EXPIRED = (
    1,
    2,
    3,
    5,
    6,
    9,
    10,
    11,
    12,
)


@dataclass(slots=True)
class ModelCredit:
    """What is left of a grant."""

    grant_id: str
    kind: int
    number: int
    left: int
    ends: datetime | None


@dataclass(slots=True)
class BooksModel:
    """Events go in, in the order in which they are booked."""

    credits: list[ModelCredit] = field(default_factory=list)
    accounts: dict[int, int] = field(default_factory=dict)

    def charge(self, charged: int, list_price: int, now: datetime) -> None:
        """Calls that cost so much."""
        self.end_credits(now)
        rest = charged
        for credit in sorted(self.credits, key=_in_spending_order):
            taken = min(credit.left, rest)
            credit.left -= taken
            rest -= taken
            self._add(credit.kind, -taken)
        self._add(RECEIVABLE, -rest)
        self._add(REVENUE, list_price)
        self._add(DISCOUNT, charged - list_price)

    def grant(self, grant_id: str, kind: int, amount: int, ends: datetime | None, now: datetime) -> None:
        self._credit(grant_id, kind, amount, ends, now)
        self._add(PAYMENT if kind == PREPAID else PROMOTION, -amount)

    def correct(self, refund_id: str, kind: int, amount: int, now: datetime) -> bool:
        """False when it is more than was charged."""
        self.end_credits(now)
        if amount > sum(self.accounts.get(account, 0) for account in (REVENUE, DISCOUNT, ADJUSTMENT)):
            return False
        self._credit(refund_id, kind, amount, None, now)
        self._add(ADJUSTMENT, -amount)
        return True

    def refund(self, grant_id: str, amount: int, now: datetime) -> bool:
        """False when it is more than is unspent of the grant."""
        self.end_credits(now)
        credit = next((credit for credit in self.credits if credit.grant_id == grant_id), None)
        if credit is None or amount > credit.left:
            return False
        credit.left -= amount
        self._add(PREPAID, -amount)
        self._add(PAYMENT, amount)
        return True

    def end_credits(self, now: datetime) -> None:
        for credit in self.credits:
            if credit.ends is not None and credit.ends <= now:
                self._add(credit.kind, -credit.left)
                self._add(EXPIRED, credit.left)
                credit.left = 0

    def remaining(self) -> dict[str, int]:
        """By grant."""
        return {credit.grant_id: credit.left for credit in self.credits}

    def balances(self) -> dict[int, int]:
        """By account, without those that are zero."""
        return {account: amount for account, amount in self.accounts.items() if amount}

    def _credit(self, grant_id: str, kind: int, amount: int, ends: datetime | None, now: datetime) -> None:
        self.end_credits(now)
        settled = min(amount, -self.accounts.get(RECEIVABLE, 0))
        self._add(RECEIVABLE, settled)
        self._add(kind, amount - settled)
        self.credits.append(ModelCredit(grant_id, kind, len(self.credits), amount - settled, ends))

    def _add(self, account: int, amount: int) -> None:
        self.accounts[account] = self.accounts.get(account, 0) + amount


def _in_spending_order(credit: ModelCredit) -> tuple[bool, float, int]:
    ends = float("inf") if credit.ends is None else credit.ends.timestamp()
    return credit.kind != PROMOTIONAL, ends, credit.number
