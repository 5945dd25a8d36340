"""What expired and what could not, for whoever asks. Works inside its caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.paging import PageRequest
from services.ledger.retention.retention import Kept

_EXPIRIES = text("""
    SELECT expiry_id, organization_id, day, kind, expire_time, row_count, record_count, cost_pico, charged_pico
      FROM ledger.expiry
     WHERE organization_id = :organization_id
       AND (CAST(:after_id AS uuid) IS NULL OR (expiry_id, kind, day) < (:after_id, :after_kind, :after_day))
     ORDER BY expiry_id DESC, kind DESC, day DESC
     LIMIT :row_count
""")
_PROBLEMS = text("""
    SELECT organization_id, day, kind, expected, found, first_time, last_time
      FROM ledger.retention_problem
     WHERE CAST(:after_day AS date) IS NULL
        OR (day, organization_id, kind) > (:after_day, CAST(:after_id AS uuid), :after_kind)
     ORDER BY day, organization_id, kind
     LIMIT :row_count
""")


class Spot(NamedTuple):
    """The place of an expiry or a problem in its list. The id is that of the expiry, or of the organization."""

    id: UUID
    kind: int
    day: date


class BySpot:
    """How such a place is written into a page token."""

    def print(self, place: Spot) -> str:
        return f"{place.id.hex} {place.kind} {place.day.isoformat()}"

    def parse(self, text: str) -> Spot:
        spot_id, kind, day = text.split(" ")
        return Spot(UUID(spot_id), Kept(int(kind)), date.fromisoformat(day))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Rows of one organization and day that left the disk together."""

    expiry_id: UUID
    organization_id: UUID
    day: date
    kind: Kept
    expire_time: datetime
    row_count: int
    # None for what has no sums.
    record_count: int | None
    cost_pico: int | None
    charged_pico: int | None

    @property
    def spot(self) -> Spot:
        return Spot(self.expiry_id, self.kind, self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionProblem:
    """An organization's day that is not what was recorded."""

    organization_id: UUID
    day: date
    kind: Kept
    # Sums that differ, by name.
    expected: Mapping[str, str]
    found: Mapping[str, str]
    first_time: datetime
    last_time: datetime

    @property
    def spot(self) -> Spot:
        return Spot(self.organization_id, self.kind, self.day)


async def list_expiries(
    connection: AsyncConnection, organization_id: UUID, page: PageRequest[Spot]
) -> Sequence[Expiry]:
    """Newest first."""
    values = {"organization_id": organization_id, "row_count": page.row_count, **_after(page)}
    rows = (await connection.execute(_EXPIRIES, values)).mappings()
    return [Expiry(**{**row, "kind": Kept(row["kind"])}) for row in rows]


async def list_problems(connection: AsyncConnection, page: PageRequest[Spot]) -> Sequence[RetentionProblem]:
    """The oldest day first."""
    rows = (await connection.execute(_PROBLEMS, {"row_count": page.row_count, **_after(page)})).mappings()
    return [RetentionProblem(**{**row, "kind": Kept(row["kind"])}) for row in rows]


def _after(page: PageRequest[Spot]) -> dict[str, object]:
    if page.after is None:
        return dict.fromkeys(("after_id", "after_kind", "after_day"))
    return {"after_id": page.after.id, "after_kind": page.after.kind, "after_day": page.after.day}
