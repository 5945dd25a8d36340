"""Whether the books agree with themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import NotFoundError
from services.ledger.storage.books.books import find_standing
from services.ledger.storage.books.verification import DIFFERENCES_MAX, Counts, Difference, Verification
from services.ledger.storage.transactions import snapshot

STATEMENT_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found."""

    verify_time: datetime
    counts: Counts
    differences: list[Difference]
    # Whether there are more than are listed.
    truncated: bool


class BookVerifier:
    """Recomputes what must agree, from one snapshot. Lives as long as the service."""

    def __init__(self, database: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def verify(self, organization_id: UUID | None) -> Findings:
        """Of one organization, or of all. Raises NotFoundError for an unknown one."""
        now = self._clock()
        async with snapshot(self._database) as connection:
            if organization_id is not None and await find_standing(connection, organization_id, now) is None:
                raise NotFoundError(f"organization {organization_id}")
            verification = Verification(connection, organization_id)
            await verification.give_time(STATEMENT_SECONDS)
            counts = await verification.counts()
            differences: list[Difference] = []
            async for difference in verification.differences():
                if len(differences) == DIFFERENCES_MAX:
                    return Findings(verify_time=now, counts=counts, differences=differences, truncated=True)
                differences.append(difference)
        return Findings(verify_time=now, counts=counts, differences=differences, truncated=False)
