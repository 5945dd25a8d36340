"""Journal entries and the balances they change, as rows. Works inside its caller's transaction, under its lock."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection

from services.ledger.books.journal import Account, Balances, EntryKind, Postings, after, worth
from services.ledger.storage.array_literals import array_of, array_of_arrays


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
    SELECT organization_id, sequence, kind, reference, create_time, balance_pico, accounts::smallint[],
           amounts::numeric[]
      FROM unnest(
               %s::uuid[], %s::bigint[], %s::smallint[], %s::text[], %s::timestamptz[], %s::numeric[], %s::text[],
               %s::text[]
           ) AS entry (organization_id, sequence, kind, reference, create_time, balance_pico, accounts, amounts)
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
    for organization_id, account, amount_pico in connection.execute(_BALANCES, (array_of(organization_ids),)):
        balances[organization_id][Account(account)] = int(amount_pico)
    return balances


def add(connection: Connection, entries: Iterable[Placed]) -> None:
    """Writes entries, at most one of each organization at once, and adds them to the balances."""
    placed_entries = list(entries)
    postings_of = [sorted(one.entry.postings.items()) for one in placed_entries]
    columns = (
        array_of(one.organization_id for one in placed_entries),
        array_of(one.sequence for one in placed_entries),
        array_of(one.entry.kind for one in placed_entries),
        [one.entry.reference for one in placed_entries],
        array_of(one.create_time for one in placed_entries),
        array_of(worth(one.balances) for one in placed_entries),
        array_of_arrays(array_of(account for account, _ in postings) for postings in postings_of),
        array_of_arrays(array_of(amount_pico for _, amount_pico in postings) for postings in postings_of),
    )
    connection.execute(_ADD_ENTRIES, columns)
    changes = [
        (one.organization_id, account, amount_pico, one.sequence)
        for one, postings in zip(placed_entries, postings_of, strict=True)
        for account, amount_pico in postings
    ]
    connection.execute(_ADD_TO_BALANCES, [array_of(column) for column in zip(*changes, strict=True)])


def time_of(connection: Connection, organization_id: str, sequence: int) -> datetime | None:
    """When an entry was booked; None when there is none."""
    query = "SELECT create_time FROM ledger.journal_entry WHERE organization_id = %s::uuid AND sequence = %s"
    row = connection.execute(query, (organization_id, sequence)).fetchone()
    return None if row is None else row[0]
