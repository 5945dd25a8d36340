"""Writes what was changed into the audit log, in the transaction of the change itself."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.authentication import Caller
from services.ledger.accounts.audit import Settings, audit_entry
from services.ledger.storage.accounts.audit import AuditStore


class ChangeLog:
    """Lives as long as the service."""

    def __init__(self, *, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._clock = clock
        self._new_id = new_id

    async def write(
        self,
        connection: AsyncConnection,
        caller: Caller,
        action: str,
        subject: str,
        *,
        organization_id: UUID | None,
        before: Settings | None = None,
        after: Settings | None = None,
    ) -> None:
        """`before` and `after` may hold all settings of the thing; those that are the same in both are left out."""
        entry = audit_entry(
            caller,
            action,
            subject,
            audit_id=self._new_id(),
            create_time=self._clock(),
            organization_id=organization_id,
            before=before,
            after=after,
        )
        await AuditStore(connection).add(entry)
