"""The journal and the grants as their readers see them. Works inside its caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.books.journal import CHARGES, Account, EntryKind, Postings
from services.ledger.storage.books.credits import CreditGrant, CreditSource


@dataclass(frozen=True, slots=True)
class BookedEntry:
    """A journal entry."""

    sequence: int
    create_time: datetime
    kind: EntryKind
    reference: str
    postings: Postings
    # What the organization has after it, less what it owes.
    balance_pico: int


_COLUMNS = "sequence, create_time, kind, reference, accounts, amounts, balance_pico"
_AFTER = text(f"""
    SELECT {_COLUMNS} FROM ledger.journal_entry
     WHERE organization_id = :organization_id AND sequence > :after ORDER BY sequence LIMIT :limit
""")  # noqa: S608 columns of ours
_LAST_BEFORE = text(f"""
    SELECT {_COLUMNS} FROM ledger.journal_entry
     WHERE organization_id = :organization_id AND sequence <= :sequence ORDER BY sequence DESC LIMIT 1
""")  # noqa: S608 columns of ours
_SEQUENCE = text("SELECT sequence FROM ledger.book WHERE organization_id = :organization_id")
_TIME_AT = text("""
    SELECT create_time FROM ledger.journal_entry WHERE organization_id = :organization_id AND sequence = :sequence
""")
# The kinds are written out, so that the index over what is not usage fits.
_MOVEMENTS = f"""
      FROM ledger.journal_entry
     WHERE organization_id = :organization_id AND sequence BETWEEN :first AND :last
       AND kind NOT IN ({", ".join(str(int(kind)) for kind in CHARGES)})
"""
_LIST_MOVEMENTS = text(f"SELECT {_COLUMNS} {_MOVEMENTS} ORDER BY sequence LIMIT :limit")
_SUM_MOVEMENTS = text(f"""
    SELECT kind, account, sum(amount) AS amount_pico
      FROM (
           SELECT kind, unnest(accounts) AS account, unnest(amounts) AS amount {_MOVEMENTS}
           ) AS posting
     GROUP BY kind, account
""")  # noqa: S608 columns of ours
_GRANTS = text("""
    SELECT grant_id, source, kind, amount_pico, expire_time, sequence, balance_pico, create_time
      FROM ledger.credit_grant
     WHERE organization_id = :organization_id AND sequence < :before ORDER BY sequence DESC LIMIT :limit
""")


class JournalReader:
    """An organization's journal. Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection, organization_id: UUID) -> None:
        self._connection = connection
        self._organization_id = organization_id

    async def entries_after(self, sequence: int, limit: int) -> list[BookedEntry]:
        return [_entry(row) for row in await self._rows(_AFTER, after=sequence, limit=limit)]

    async def last_sequence(self) -> int:
        """0 before the first entry."""
        rows = await self._rows(_SEQUENCE)
        return int(rows[0].sequence) if rows else 0

    async def last_before(self, moment: datetime) -> int:
        """The sequence of the last entry before a moment, 0 when there is none. Times rise with sequences."""
        low, high = 0, await self.last_sequence()
        while low < high:
            middle = (low + high + 1) // 2
            rows = await self._rows(_TIME_AT, sequence=middle)
            if rows and rows[0].create_time < moment:
                low = middle
            else:
                high = middle - 1
        return low

    async def balance_at(self, sequence: int) -> int:
        """What there was after an entry, less what was owed."""
        rows = await self._rows(_LAST_BEFORE, sequence=sequence)
        return _entry(rows[0]).balance_pico if rows else 0

    async def movements(self, first: int, last: int, limit: int) -> list[BookedEntry]:
        """Entries that are not about usage, in order."""
        return [_entry(row) for row in await self._rows(_LIST_MOVEMENTS, first=first, last=last, limit=limit)]

    async def movement_sums(self, first: int, last: int) -> Mapping[EntryKind, Postings]:
        """What they add up to, by kind and account."""
        sums: dict[EntryKind, Postings] = {}
        for row in await self._rows(_SUM_MOVEMENTS, first=first, last=last):
            sums.setdefault(EntryKind(row.kind), {})[Account(row.account)] = int(row.amount_pico)
        return sums

    async def grants(self, before: int, limit: int) -> list[CreditGrant]:
        """The newest first, before the one with this sequence."""
        return [
            CreditGrant(
                organization_id=str(self._organization_id),
                grant_id=row.grant_id,
                source=CreditSource(row.source),
                account=Account(row.kind),
                amount_pico=int(row.amount_pico),
                expire_time=row.expire_time,
                sequence=row.sequence,
                balance_pico=int(row.balance_pico),
                create_time=row.create_time,
            )
            for row in await self._rows(_GRANTS, before=before, limit=limit)
        ]

    async def _rows(self, query: Any, **values: object) -> list[Any]:
        return list((await self._connection.execute(query, {"organization_id": self._organization_id, **values})).all())


def _entry(row: Any) -> BookedEntry:
    postings = {Account(account): int(amount) for account, amount in zip(row.accounts, row.amounts, strict=True)}
    return BookedEntry(
        row.sequence, row.create_time, EntryKind(row.kind), row.reference, postings, int(row.balance_pico)
    )
