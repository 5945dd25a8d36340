"""Journal entries and the balances they change, as rows. Works inside its caller's transaction, under its lock."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection

from services.ledger.books.journal import Account, Balances, EntryKind, Postings, after, worth


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be booked."""

    kind: EntryKind
    reference: str
    postings: Postings


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry in its place in an organization's journal."""

    organization_id: str
    sequence: int
    create_time: datetime
    entry: Entry
    # As they are after it.
    balances: Balances


def placed(organization_id: str, sequence: int, create_time: datetime, entry: Entry, before: Balances) -> Placed:
    return Placed(organization_id, sequence, create_time, entry, after(before, entry.postings))


_BALANCES = """
    SELECT organization_id::text, account, amount_pico FROM ledger.balance WHERE organization_id = ANY(%s::uuid[])
"""
_ADD_ENTRIES = """
    INSERT INTO ledger.journal_entry
           (organization_id, sequence, kind, reference, create_time, balance_pico, accounts, amounts)
    SELECT organization_id, sequence, kind, reference, create_time, balance_pico,
           array_agg(account ORDER BY account), array_agg(amount_pico ORDER BY account)
      FROM unnest(
               %s::uuid[], %s::bigint[], %s::smallint[], %s::text[], %s::timestamptz[], %s::numeric[], %s::smallint[],
               %s::numeric[]
           ) AS posting (
               organization_id, sequence, kind, reference, create_time, balance_pico, account, amount_pico
           )
     GROUP BY organization_id, sequence, kind, reference, create_time, balance_pico
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


def find_balances(connection: Connection, organization_ids: Collection[str]) -> dict[str, dict[Account, int]]:
    """By organization and account. Accounts that nothing was ever posted to are left out."""
    balances: dict[str, dict[Account, int]] = {organization_id: {} for organization_id in organization_ids}
    for organization_id, account, amount_pico in connection.execute(_BALANCES, (list(organization_ids),)):
        balances[organization_id][Account(account)] = int(amount_pico)
    return balances


def add(connection: Connection, entries: Iterable[Placed]) -> None:
    """Writes entries, at most one of each organization at once, and adds them to the balances."""
    postings = [(one, account, amount_pico) for one in entries for account, amount_pico in one.entry.postings.items()]
    ids = [one.organization_id for one, *_ in postings]
    sequences = [one.sequence for one, *_ in postings]
    kinds = [int(one.entry.kind) for one, *_ in postings]
    references = [one.entry.reference for one, *_ in postings]
    times = [one.create_time for one, *_ in postings]
    worths = [worth(one.balances) for one, *_ in postings]
    accounts = [int(account) for _, account, _ in postings]
    amounts = [amount_pico for *_, amount_pico in postings]
    connection.execute(_ADD_ENTRIES, (ids, sequences, kinds, references, times, worths, accounts, amounts))
    connection.execute(_ADD_TO_BALANCES, (ids, accounts, amounts, sequences))


def time_of(connection: Connection, organization_id: str, sequence: int) -> datetime | None:
    """When an entry was booked; None when there is none."""
    query = "SELECT create_time FROM ledger.journal_entry WHERE organization_id = %s::uuid AND sequence = %s"
    row = connection.execute(query, (organization_id, sequence)).fetchone()
    return None if row is None else row[0]
