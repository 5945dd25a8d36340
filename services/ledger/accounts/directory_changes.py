"""Tells routers which organizations change: looked for once per ledger, whoever listens.

Every change of an account leaves a line in the audit log, in its own transaction, whichever ledger makes it. So nobody
has to be notified, and no notice can be lost. A line may be committed after younger ones; hence looks overlap. What
takes longer than they do is seen when the answers that routers keep have grown old.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import UnavailableError
from services.ledger.storage.accounts.audit import AuditStore
from services.ledger.storage.transactions import transaction

LOOK_SECONDS = 0.25
# What took longer to see is not told, for it may be wrong by then.
LOOK_SECONDS_MAX = 0.25
# As long as routers believe an answer, so that one of before a long silence is not believed after it.
OVERLAP = timedelta(seconds=10)
# With more than that in the overlap nothing is told, and routers ask for themselves.
CHANGES_MAX = 10_000


class _Listener:
    """What one router has still to be told."""

    def __init__(self) -> None:
        self.changed: set[UUID] = set()
        self.wake = asyncio.Event()


class DirectoryChanges:
    """Lives as long as the service."""

    def __init__(self, database: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._listeners: set[_Listener] = set()
        self._seen: Set[UUID] = frozenset()
        self._is_ending = False

    async def follow(self) -> None:
        """Looks four times a second while anybody listens, for ever."""
        while True:
            if self._listeners:
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def listen(self) -> AsyncIterator[Set[UUID]]:
        """After each look what has changed since the one before, until the end. Silent while the database is away, or
        slow."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while not self._is_ending:
                await listener.wake.wait()
                listener.wake.clear()
                changed, listener.changed = listener.changed, set()
                yield changed
        finally:
            self._listeners.discard(listener)

    def end(self) -> None:
        """Ends all listening."""
        self._is_ending = True
        for listener in self._listeners:
            listener.wake.set()

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with transaction(self._database) as connection:
                since = self._clock() - OVERLAP
                organizations = await AuditStore(connection).organizations_since(since, CHANGES_MAX)
        except UnavailableError:
            return
        if clock() - begun > LOOK_SECONDS_MAX or len(organizations) == CHANGES_MAX:
            return
        changed = {organization for change, organization in organizations.items() if change not in self._seen}
        self._seen = organizations.keys()
        for listener in self._listeners:
            listener.changed |= changed
            listener.wake.set()
