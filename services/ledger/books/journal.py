"""Which postings an event makes. Pure: balances go in, postings come out.

**Signs.** Amounts are pico-USD as the organization sees them. On its own accounts, positive is what it may spend and
negative what it owes: credit raises `PREPAID` or `PROMOTIONAL`, a charge lowers them, and a charge beyond them lowers
`RECEIVABLE` below zero. Our accounts are the other side, so that every entry sums to zero:

    grant of 10 prepaid                PREPAID +10     PAYMENT -10
    call of 3, discounted from 4       PREPAID -3      REVENUE +4      DISCOUNT -1
    call of 9 with 7 left              PREPAID -7      RECEIVABLE -2   REVENUE +9
    grant of 10 promotional after it   RECEIVABLE +2   PROMOTIONAL +8  PROMOTION -10
    end of 5 promotional unspent       PROMOTIONAL -5  EXPIRED +5
    refund of 5 prepaid unspent        PREPAID -5      PAYMENT +5
    correction of a charge by 3        PREPAID +3      ADJUSTMENT -3

Charges take promotional credit before prepaid. A finished call is always charged, whatever the balance. New credit
first settles what is owed, so that the order in which grants and calls arrive does not matter. A correction leaves
REVENUE and DISCOUNT as they are, so that those are always what was charged for usage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Account(IntEnum):
    """What is kept per organization. Numbers are stored: new accounts may come, none may change."""

    # The organization's.
    PREPAID = 1
    PROMOTIONAL = 2
    RECEIVABLE = 3
    # Set aside by leases.
    HELD = 4
    # Ours, kept per organization so that no row is everybody's.
    REVENUE = 5
    DISCOUNT = 6
    UPSTREAM_COST = 7
    ROUNDING = 8
    # Where credit comes from: the customer's money, or our gift.
    PAYMENT = 9
    PROMOTION = 10
    # Charges that were corrected, and credit that ended unspent.
    ADJUSTMENT = 11
    EXPIRED = 12


class EntryKind(IntEnum):
    """What a journal entry is about. Numbers are stored."""

    USAGE = 1
    GRANT = 2
    EXPIRY = 3
    REFUND = 4
    CORRECTION = 5
    # Calls that had no price were charged when one was published.
    PRICING = 6


# Entries that charge calls. There are many, and statements need none of them one by one.
CHARGES = (EntryKind.USAGE, EntryKind.PRICING)


# What may be spent; RECEIVABLE is never above zero.
SPENDABLE = (Account.PROMOTIONAL, Account.PREPAID)
# What makes up the organization's balance, less what it owes.
OWN = (*SPENDABLE, Account.RECEIVABLE, Account.HELD)

Balances = Mapping[Account, int]
Postings = dict[Account, int]


@dataclass(frozen=True, slots=True)
class Charge:
    """What calls of one organization cost its credits, in pico-USD."""

    charged_pico: int
    # The same before discounts.
    list_pico: int


def charge(due: Charge, balances: Balances) -> Postings:
    """Takes a charge from promotional credit, then prepaid credit; the rest is owed."""
    postings: Postings = {}
    rest = due.charged_pico
    for account in SPENDABLE:
        taken = min(rest, max(0, balances.get(account, 0)))
        _post(postings, account, -taken)
        rest -= taken
    _post(postings, Account.RECEIVABLE, -rest)
    _post(postings, Account.REVENUE, due.list_pico)
    _post(postings, Account.DISCOUNT, due.charged_pico - due.list_pico)
    return postings


def grant(account: Account, amount_pico: int, balances: Balances) -> Postings:
    """Adds credit to PREPAID or PROMOTIONAL, after it has settled what is owed."""
    source = Account.PAYMENT if account is Account.PREPAID else Account.PROMOTION
    return _credit(account, amount_pico, balances, source)


def correct(account: Account, amount_pico: int, balances: Balances) -> Postings:
    """Gives back what was charged, as new credit."""
    return _credit(account, amount_pico, balances, Account.ADJUSTMENT)


def refund(amount_pico: int) -> Postings:
    """Takes prepaid credit out of the books, back to who paid it."""
    return {Account.PREPAID: -amount_pico, Account.PAYMENT: amount_pico}


def expire(account: Account, amount_pico: int) -> Postings:
    """Ends credit that was not spent."""
    return {account: -amount_pico, Account.EXPIRED: amount_pico}


def _credit(account: Account, amount_pico: int, balances: Balances, source: Account) -> Postings:
    owed = -min(0, balances.get(Account.RECEIVABLE, 0))
    settled = min(owed, amount_pico)
    postings: Postings = {}
    _post(postings, Account.RECEIVABLE, settled)
    _post(postings, account, amount_pico - settled)
    _post(postings, source, -amount_pico)
    return postings


def after(balances: Balances, postings: Postings) -> dict[Account, int]:
    """The balances once the postings are made."""
    return {account: balances.get(account, 0) + postings.get(account, 0) for account in {*balances, *postings}}


def spendable(balances: Balances) -> int:
    """Promotional and prepaid credit together."""
    return sum(balances.get(account, 0) for account in SPENDABLE)


def worth(balances: Balances) -> int:
    """What the organization has, less what it owes."""
    return sum(balances.get(account, 0) for account in OWN)


def correctable(balances: Balances) -> int:
    """What was ever charged, and not given back yet."""
    return sum(balances.get(account, 0) for account in (Account.REVENUE, Account.DISCOUNT, Account.ADJUSTMENT))


def _post(postings: Postings, account: Account, amount_pico: int) -> None:
    if amount_pico:
        postings[account] = amount_pico
