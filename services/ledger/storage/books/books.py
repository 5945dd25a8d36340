"""An organization's books in PostgreSQL: what is booked, under one lock, and how they stand."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.books.credits import Credit, settled, without_ended
from services.ledger.books.journal import Account, Balances, spendable
from services.ledger.storage.array_literals import array_of
from services.ledger.storage.books import postings
from services.ledger.storage.books.credits import credit_from_row, end_credits
from services.ledger.storage.books.postings import Entry, Placed

__all__ = [
    "Entry",
    "Placed",
    "Standing",
    "books_due",
    "credit_available",
    "end_due",
    "find_standing",
    "lock_organization",
    "post",
]


class _Page(NamedTuple):
    """Where an organization's next entry goes."""

    sequence: int
    post_time: datetime
    # None when no credit ends.
    next_expire_time: datetime | None

    @property
    def follows_an_end(self) -> bool:
        return self.next_expire_time is not None and self.next_expire_time <= self.post_time


# The row is the lock on an organization's books. Sorted, so that two batches take the locks they share in one order.
# Times do not go back, though the clocks of two ledgers may differ.
_NEXT_PAGES = """
    INSERT INTO ledger.book (organization_id, sequence, post_time)
    SELECT organization_id, 1, %s FROM unnest(%s::uuid[]) AS organization_id ORDER BY organization_id
    ON CONFLICT (organization_id) DO UPDATE
       SET sequence = book.sequence + 1, post_time = GREATEST(book.post_time, excluded.post_time)
    RETURNING organization_id::text, sequence, post_time, next_expire_time
"""
_LOCK = """
    SELECT sequence + 1, GREATEST(post_time, %s), next_expire_time
      FROM ledger.book WHERE organization_id = %s::uuid FOR UPDATE
"""
_TURN_TO = "UPDATE ledger.book SET sequence = %s, post_time = %s WHERE organization_id = %s::uuid"
_DUE = """
    SELECT organization_id::text FROM ledger.book WHERE next_expire_time <= %s ORDER BY next_expire_time LIMIT %s
"""


def post(
    connection: Connection,
    organization_ids: Collection[str],
    now: datetime,
    decide: Callable[[str, Balances], Entry],
) -> dict[str, Placed]:
    """Books one entry for each organization, as `decide` makes it from the balances there are.

    The end of credit that has ended by now is booked first. Holds every one of these books until the transaction ends.
    """
    ids = sorted(organization_ids)
    if not ids:
        return {}
    pages = {
        organization_id: _Page(*page)
        for organization_id, *page in connection.execute(_NEXT_PAGES, (now, array_of(ids))).fetchall()
    }
    balances: dict[str, Balances] = dict(postings.find_balances(connection, ids))
    for organization_id in ids:
        page = pages[organization_id]
        if page.follows_an_end:
            ended = end_credits(connection, organization_id, page.sequence, balances[organization_id], page.post_time)
            connection.execute(_TURN_TO, (ended.next_sequence, page.post_time, organization_id))
            pages[organization_id] = page._replace(sequence=ended.next_sequence)
            balances[organization_id] = ended.balances
    entries = {
        one: postings.placed(one, pages[one].sequence, pages[one].post_time, decide(one, balances[one]), balances[one])
        for one in ids
    }
    postings.add(connection, entries.values())
    return entries


def books_due(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Organizations some of whose credit has ended, and nobody has booked it yet."""
    return [organization_id for (organization_id,) in connection.execute(_DUE, (now, limit))]


def end_due(connection: Connection, organization_id: str, now: datetime) -> None:
    """Books the end of credit that has ended by now; nothing when another has."""
    row = connection.execute(_LOCK, (now, organization_id)).fetchone()
    if row is None or not (page := _Page(*row)).follows_an_end:
        return
    before = postings.find_balances(connection, [organization_id])[organization_id]
    ended = end_credits(connection, organization_id, page.sequence, before, page.post_time)
    last_time = postings.time_of(connection, organization_id, ended.next_sequence - 1)
    if last_time is not None:
        connection.execute(_TURN_TO, (ended.next_sequence - 1, last_time, organization_id))


def lock_organization(connection: Connection, organization_id: str) -> bool:
    """Makes grants to one organization wait for each other. False when there is no such organization."""
    query = "SELECT 1 FROM ledger.organization WHERE organization_id = %s::uuid FOR NO KEY UPDATE"
    return connection.execute(query, (organization_id,)).fetchone() is not None


# Questions


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization's books as they are at a moment. What has ended by then is left out, booked or not."""

    # The last journal entry; 0 before the first.
    sequence: int
    balances: Mapping[Account, int]
    # With what remains of each.
    credits: Iterable[Credit]
    # Of the balances, what leases have set aside for running calls.
    held_pico: int = 0


# One statement, so that all of it is of one moment.
_STANDING = text("""
    SELECT book.sequence, 0 AS part, balance.account, balance.amount_pico, NULL AS grant_id, NULL::timestamptz AS ends
      FROM ledger.organization
      LEFT JOIN ledger.book USING (organization_id)
      LEFT JOIN ledger.balance USING (organization_id)
     WHERE organization_id = :organization_id
     UNION ALL
    SELECT sequence, 1, kind, remaining_pico, grant_id, expire_time
      FROM ledger.credit_grant
     WHERE organization_id = :organization_id AND remaining_pico > 0
     UNION ALL
    SELECT 0, 2, 0, COALESCE(sum(held_pico), 0), NULL, NULL
      FROM ledger.lease
     WHERE organization_id = :organization_id AND held_pico > 0
""")


async def find_standing(connection: AsyncConnection, organization_id: UUID, now: datetime) -> Standing | None:
    """None when there is no such organization."""
    rows = (await connection.execute(_STANDING, {"organization_id": organization_id})).all()
    books = [row for row in rows if row.part == 0]
    if not books:
        return None
    balances = {Account(row.account): int(row.amount_pico) for row in books if row.account is not None}
    opened = [
        credit_from_row((row.sequence, row.grant_id, row.account, row.amount_pico, row.ends))
        for row in rows
        if row.part == 1
    ]
    left = settled(opened, balances)
    return Standing(
        books[0].sequence or 0,
        without_ended(balances, left, now),
        [credit for credit in left if not credit.has_ended(now)],
        next(int(row.amount_pico) for row in rows if row.part == 2),
    )


async def credit_available(connection: AsyncConnection, organization_id: UUID, now: datetime) -> bool:
    """Whether the organization has more credit than it owes."""
    standing = await find_standing(connection, organization_id, now)
    return standing is not None and spendable(standing.balances) + standing.balances.get(Account.RECEIVABLE, 0) > 0
