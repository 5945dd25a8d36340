"""What organizations have kept, and for how long, in PostgreSQL."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.retention.retention import retention_class
from services.ledger.storage.array_literals import array_of


class Keeping(NamedTuple):
    """What is kept of an organization's calls from now on."""

    retention_class: int
    payload_retained: bool


_FIND = """
    SELECT organization_id::text, retention_days, payload_retained
      FROM ledger.organization WHERE organization_id = ANY(%s::uuid[])
"""
_TERMS = "SELECT DISTINCT retention_days FROM ledger.organization"


def find_keeping(connection: Connection, organization_ids: Collection[str]) -> dict[str, Keeping]:
    """By organization. Unknown ones are left out."""
    if not organization_ids:
        return {}
    rows = connection.execute(_FIND, (array_of(sorted(organization_ids)),))
    return {organization_id: Keeping(retention_class(days), retained) for organization_id, days, retained in rows}


def classes_in_use(connection: Connection) -> set[int]:
    """The classes of all organizations there are."""
    return {retention_class(days) for (days,) in connection.execute(_TERMS)}


_KEPT_SINCE = text("""
    SELECT ledger.kept_since(:now, retention_days, retention_floor)
      FROM reporting.organization WHERE organization_id = :organization_id
""")


async def find_kept_since(connection: AsyncConnection, organization_id: UUID, now: datetime) -> datetime | None:
    """From when on an organization sees its calls; None when there is no such organization."""
    values = {"organization_id": organization_id, "now": now}
    since: datetime | None = (await connection.execute(_KEPT_SINCE, values)).scalar_one_or_none()
    return since
