"""The journal and its balances in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.journal import SPENDABLE, Account, Balances, EntryKind, Postings, after


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization's books as they are."""

    # The last journal entry; 0 before the first.
    sequence: int
    balances: Mapping[Account, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be booked for one organization."""

    kind: EntryKind
    reference: str
    create_time: datetime
    postings: Postings


# The row is the lock on an organization's books. Sorted, so that two batches take the locks they share in one order.
_NEXT_SEQUENCES = """
    INSERT INTO ledger.book (organization_id, sequence)
    SELECT organization_id, 1 FROM unnest(%s::uuid[]) AS organization_id ORDER BY organization_id
    ON CONFLICT (organization_id) DO UPDATE SET sequence = book.sequence + 1
    RETURNING organization_id::text, sequence
"""
_BALANCES = """
    SELECT organization_id::text, account, amount_pico FROM ledger.balance WHERE organization_id = ANY(%s::uuid[])
"""
_ADD_ENTRIES = """
    INSERT INTO ledger.journal_entry (organization_id, sequence, kind, reference, create_time, accounts, amounts)
    SELECT organization_id, sequence, kind, reference, create_time,
           array_agg(account ORDER BY account), array_agg(amount_pico ORDER BY account)
      FROM unnest(
               %s::uuid[], %s::bigint[], %s::smallint[], %s::text[], %s::timestamptz[], %s::smallint[], %s::numeric[]
           ) AS posting (organization_id, sequence, kind, reference, create_time, account, amount_pico)
     GROUP BY organization_id, sequence, kind, reference, create_time
     ORDER BY organization_id, sequence
"""
_ADD_TO_BALANCES = """
    INSERT INTO ledger.balance (organization_id, account, amount_pico, sequence)
    SELECT organization_id, account, amount_pico, sequence
      FROM unnest(%s::uuid[], %s::smallint[], %s::numeric[], %s::bigint[])
           AS posting (organization_id, account, amount_pico, sequence)
     ORDER BY organization_id, account
    ON CONFLICT (organization_id, account) DO UPDATE
       SET amount_pico = balance.amount_pico + excluded.amount_pico, sequence = excluded.sequence
"""


def post(
    connection: Connection, organization_ids: Collection[str], decide: Callable[[str, Balances], Entry]
) -> dict[str, Standing]:
    """Books one entry for each organization, as `decide` makes it from the balances there are.

    Holds every one of these books until the transaction ends. Returns how they stand then.
    """
    ids = sorted(organization_ids)
    if not ids:
        return {}
    sequences: dict[str, int] = dict(connection.execute(_NEXT_SEQUENCES, (ids,)).fetchall())
    balances: dict[str, dict[Account, int]] = {organization_id: {} for organization_id in ids}
    for organization_id, account, amount_pico in connection.execute(_BALANCES, (ids,)):
        balances[organization_id][Account(account)] = int(amount_pico)
    entries = {organization_id: decide(organization_id, balances[organization_id]) for organization_id in ids}
    _write(connection, entries, sequences)
    return {
        organization_id: Standing(sequences[organization_id], after(balances[organization_id], entry.postings))
        for organization_id, entry in entries.items()
    }


def _write(connection: Connection, entries: Mapping[str, Entry], sequences: Mapping[str, int]) -> None:
    postings = [
        (organization_id, sequences[organization_id], entry, account, amount_pico)
        for organization_id, entry in entries.items()
        for account, amount_pico in entry.postings.items()
    ]
    ids = [organization_id for organization_id, *_ in postings]
    numbers = [sequence for _, sequence, *_ in postings]
    accounts = [int(account) for *_, account, _ in postings]
    amounts = [amount_pico for *_, amount_pico in postings]
    kinds = [int(entry.kind) for _, _, entry, *_ in postings]
    references = [entry.reference for _, _, entry, *_ in postings]
    times = [entry.create_time for _, _, entry, *_ in postings]
    connection.execute(_ADD_ENTRIES, (ids, numbers, kinds, references, times, accounts, amounts))
    connection.execute(_ADD_TO_BALANCES, (ids, accounts, amounts, numbers))


# Grants


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """Credit that was added."""

    organization_id: str
    grant_id: str
    # PREPAID or PROMOTIONAL.
    account: Account
    amount_pico: int
    # The journal entry that booked it.
    sequence: int
    # What could be spent after it.
    balance_pico: int
    create_time: datetime


def lock_organization(connection: Connection, organization_id: str) -> bool:
    """Makes grants to one organization wait for each other. False when there is no such organization."""
    query = "SELECT 1 FROM ledger.organization WHERE organization_id = %s::uuid FOR NO KEY UPDATE"
    return connection.execute(query, (organization_id,)).fetchone() is not None


def find_grant(connection: Connection, organization_id: str, grant_id: str) -> CreditGrant | None:
    query = """
        SELECT kind, amount_pico, sequence, balance_pico, create_time
          FROM ledger.credit_grant WHERE organization_id = %s::uuid AND grant_id = %s
    """
    row = connection.execute(query, (organization_id, grant_id)).fetchone()
    if row is None:
        return None
    kind, amount_pico, sequence, balance_pico, create_time = row
    return CreditGrant(
        organization_id, grant_id, Account(kind), int(amount_pico), sequence, int(balance_pico), create_time
    )


def add_grant(connection: Connection, grant: CreditGrant) -> None:
    statement = """
        INSERT INTO ledger.credit_grant
               (organization_id, grant_id, kind, amount_pico, sequence, balance_pico, create_time)
        VALUES (%s::uuid, %s, %s, %s, %s, %s, %s)
    """
    values = (
        grant.organization_id,
        grant.grant_id,
        int(grant.account),
        grant.amount_pico,
        grant.sequence,
        grant.balance_pico,
        grant.create_time,
    )
    connection.execute(statement, values)


# Questions

_CREDIT_AVAILABLE = text("""
    SELECT COALESCE(sum(amount_pico), 0) > 0
      FROM ledger.balance
     WHERE organization_id = :organization_id AND account = ANY(:accounts)
""")
_STANDING = text("""
    SELECT book.sequence, balance.account, balance.amount_pico
      FROM ledger.organization
      LEFT JOIN ledger.book USING (organization_id)
      LEFT JOIN ledger.balance USING (organization_id)
     WHERE organization_id = :organization_id
""")
_OWN_ACCOUNTS = [int(account) for account in (*SPENDABLE, Account.RECEIVABLE)]


async def credit_available(connection: AsyncConnection, organization_id: UUID) -> bool:
    """Whether the organization has more credit than it owes."""
    values = {"organization_id": organization_id, "accounts": _OWN_ACCOUNTS}
    return bool((await connection.execute(_CREDIT_AVAILABLE, values)).scalar_one())


async def find_standing(connection: AsyncConnection, organization_id: UUID) -> Standing | None:
    """The books as of the last entry; None when there is no such organization."""
    rows = (await connection.execute(_STANDING, {"organization_id": organization_id})).all()
    if not rows:
        return None
    balances = {Account(row.account): int(row.amount_pico) for row in rows if row.account is not None}
    return Standing(rows[0].sequence or 0, balances)
