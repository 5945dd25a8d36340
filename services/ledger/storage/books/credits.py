"""Grants, what remains of them, and their end. Works inside its caller's transaction, under the lock of the book."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum

from psycopg import Connection

from services.ledger.books.credits import Credit, ended, settled, taken
from services.ledger.books.journal import Account, Balances, EntryKind, expire, worth
from services.ledger.storage.books import postings
from services.ledger.storage.books.postings import Entry

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class CreditSource(IntEnum):
    """Why there is credit. The numbers are those of `tollgate.ledger.v1.CreditSource`."""

    GRANT = 1
    CORRECTION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditGrant:
    """Credit that was added."""

    organization_id: str
    grant_id: str
    source: CreditSource
    # PREPAID or PROMOTIONAL.
    account: Account
    amount_pico: int
    # None for credit that does not end.
    expire_time: datetime | None
    # The journal entry that booked it.
    sequence: int
    # What could be spent after it.
    balance_pico: int
    create_time: datetime


_GRANT = """
    SELECT source, kind, amount_pico, expire_time, sequence, balance_pico, create_time
      FROM ledger.credit_grant WHERE organization_id = %s::uuid AND grant_id = %s
"""
_ADD_GRANT = """
    INSERT INTO ledger.credit_grant
           (organization_id, grant_id, source, kind, amount_pico, expire_time, sequence, balance_pico, create_time,
            remaining_pico)
    VALUES (%s::uuid, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
OPEN = """
    SELECT sequence, grant_id, kind, remaining_pico, expire_time
      FROM ledger.credit_grant WHERE organization_id = %s::uuid AND remaining_pico > 0
"""
_SET_REMAINING = """
    UPDATE ledger.credit_grant SET remaining_pico = left_over.remaining_pico
      FROM unnest(%s::bigint[], %s::numeric[]) AS left_over (sequence, remaining_pico)
     WHERE credit_grant.organization_id = %s::uuid AND credit_grant.sequence = left_over.sequence
       AND credit_grant.remaining_pico <> left_over.remaining_pico
"""
_HELD = """
    SELECT COALESCE(sum(held_pico), 0) FROM ledger.lease WHERE organization_id = %s::uuid AND held_pico > 0
"""
_SET_NEXT_EXPIRY = """
    UPDATE ledger.book
       SET next_expire_time = (
           SELECT min(expire_time) FROM ledger.credit_grant
            WHERE credit_grant.organization_id = book.organization_id AND remaining_pico > 0
           )
     WHERE organization_id = %s::uuid
"""


def find_grant(connection: Connection, organization_id: str, grant_id: str) -> CreditGrant | None:
    row = connection.execute(_GRANT, (organization_id, grant_id)).fetchone()
    if row is None:
        return None
    source, kind, amount_pico, expire_time, sequence, balance_pico, create_time = row
    return CreditGrant(
        organization_id=organization_id,
        grant_id=grant_id,
        source=CreditSource(source),
        account=Account(kind),
        amount_pico=int(amount_pico),
        expire_time=expire_time,
        sequence=sequence,
        balance_pico=int(balance_pico),
        create_time=create_time,
    )


def add_grant(connection: Connection, grant: CreditGrant, remaining_pico: int) -> None:
    """Adds credit of which so much is left after it settled what was owed. The others must be settled."""
    values = (
        grant.organization_id,
        grant.grant_id,
        int(grant.source),
        int(grant.account),
        grant.amount_pico,
        grant.expire_time,
        grant.sequence,
        grant.balance_pico,
        grant.create_time,
        remaining_pico,
    )
    connection.execute(_ADD_GRANT, values)
    set_next_expiry(connection, grant.organization_id)


def settle(connection: Connection, organization_id: str, balances: Balances) -> list[Credit]:
    """Writes down what remains of each credit, with the balances as they are. Returns those that have something."""
    rows = connection.execute(OPEN, (organization_id,))
    left = settled([credit_from_row(row) for row in rows], balances)
    set_remaining(connection, organization_id, left)
    return [credit for credit in left if credit.remaining_pico]


def credit_from_row(row: Sequence[object]) -> Credit:
    """From the columns of `OPEN`."""
    sequence, grant_id, kind, remaining_pico, expire_time = row
    return Credit(
        sequence=int(str(sequence)),
        grant_id=str(grant_id),
        account=Account(int(str(kind))),
        remaining_pico=int(str(remaining_pico)),
        expire_time=expire_time if isinstance(expire_time, datetime) else None,
    )


def set_remaining(connection: Connection, organization_id: str, left: Iterable[Credit]) -> None:
    remaining = {credit.sequence: credit.remaining_pico for credit in left}
    if remaining:
        connection.execute(_SET_REMAINING, (list(remaining), list(remaining.values()), organization_id))


def set_next_expiry(connection: Connection, organization_id: str) -> None:
    """Notes when the next credit ends. Ends that were booked leave nothing behind."""
    connection.execute(_SET_NEXT_EXPIRY, (organization_id,))


@dataclass(frozen=True, slots=True)
class Ended:
    """An organization's books after ends of credit were booked."""

    # The next sequence that is free.
    next_sequence: int
    balances: Balances


def end_credits(
    connection: Connection, organization_id: str, first_sequence: int, before: Balances, now: datetime
) -> Ended:
    """Books the end of every credit that has ended by now: an entry each, at the moment it ended.

    What leases hold stays for the calls that reserved it while there was credit; what they leave of it ends later.
    """
    due = taken(ended(settle(connection, organization_id, before), now), free_pico(connection, organization_id, before))
    sequence, balances = first_sequence, before
    earliest = postings.time_of(connection, organization_id, first_sequence - 1) or _LONG_AGO
    for credit, taken_pico in due:
        entry = Entry(EntryKind.EXPIRY, credit.grant_id, expire(credit.account, taken_pico))
        # The clock of another ledger may have been ahead.
        earliest = max(earliest, credit.expire_time or earliest)
        one = postings.placed(organization_id, sequence, earliest, entry, balances)
        postings.add(connection, [one])
        sequence, balances = sequence + 1, one.balances
    left = [replace(credit, remaining_pico=credit.remaining_pico - taken_pico) for credit, taken_pico in due]
    set_remaining(connection, organization_id, left)
    set_next_expiry(connection, organization_id)
    return Ended(sequence, balances)


def free_pico(connection: Connection, organization_id: str, balances: Balances) -> int:
    """What no lease holds of what the organization has, less what it owes."""
    row = connection.execute(_HELD, (organization_id,)).fetchone()
    return max(0, worth(balances) - (int(row[0]) if row else 0))
