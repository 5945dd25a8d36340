"""What the books say to those who follow them: grants, entries, statements."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.errors import NotFoundError
from services.ledger.books.statement import (
    Amounts,
    BalanceSheet,
    Period,
    StatementLine,
    balance_sheet,
    total_of,
)
from services.ledger.paging import Page, PageRequest
from services.ledger.storage.books import books, money_reading
from services.ledger.storage.books.credits import CreditGrant
from services.ledger.storage.books.journal_reading import BookedEntry, JournalReader
from services.ledger.storage.transactions import snapshot

MOVEMENTS_MAX = 1_000
SEQUENCE_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RemainingGrant:
    """A grant and what of it can be spent."""

    grant: CreditGrant
    remaining_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """An organization's period."""

    organization_id: UUID
    period: Period
    create_time: datetime
    lines: list[StatementLine]
    total: Amounts
    unpriced_count: int
    balance: BalanceSheet
    # 0 where the period has no entries.
    first_sequence: int
    last_sequence: int
    movements: list[BookedEntry]


class BookReader:
    """Reads, each answer from one snapshot. Lives as long as the service."""

    def __init__(self, database: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def entries(self, organization_id: UUID, after: int, limit: int) -> list[BookedEntry]:
        """Raises NotFoundError for an unknown organization."""
        async with snapshot(self._database) as connection:
            found = await JournalReader(connection, organization_id).entries_after(after, limit)
            if not found:
                await self._standing(connection, organization_id)
            return found

    async def grants(self, organization_id: UUID, asked: PageRequest[int]) -> Page[RemainingGrant]:
        """The newest first. Raises NotFoundError for an unknown organization."""
        async with snapshot(self._database) as connection:
            standing = await self._standing(connection, organization_id)
            remaining = {credit.sequence: credit.remaining_pico for credit in standing.credits}
            before = SEQUENCE_MAX if asked.after is None else asked.after
            found = await JournalReader(connection, organization_id).grants(before, asked.row_count)
        rows = [RemainingGrant(grant, remaining.get(grant.sequence, 0)) for grant in found]
        return asked.page(rows, lambda row: row.grant.sequence)

    async def statement(self, organization_id: UUID, period: Period) -> Statement:
        """Raises NotFoundError for an unknown organization."""
        async with snapshot(self._database) as connection:
            await self._standing(connection, organization_id)
            journal = JournalReader(connection, organization_id)
            before = await journal.last_before(period.start)
            last = await journal.last_before(period.end)
            lines = await money_reading.lines_of(connection, organization_id, period.first, period.last)
            return Statement(
                organization_id=organization_id,
                period=period,
                create_time=self._clock(),
                lines=lines,
                total=total_of(lines),
                unpriced_count=await money_reading.unpriced_count(
                    connection, organization_id, period.first, period.last
                ),
                balance=balance_sheet(
                    await journal.balance_at(before),
                    await journal.balance_at(last),
                    await journal.movement_sums(before + 1, last),
                ),
                first_sequence=before + 1 if last > before else 0,
                last_sequence=last if last > before else 0,
                movements=await journal.movements(before + 1, last, MOVEMENTS_MAX),
            )

    async def _standing(self, connection: AsyncConnection, organization_id: UUID) -> books.Standing:
        standing = await books.find_standing(connection, organization_id, self._clock())
        if standing is None:
            raise NotFoundError(f"organization {organization_id}")
        return standing
