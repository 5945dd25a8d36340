"""Tells the ledger when nothing can come any more of what earlier lives of this worker's log owed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.common.errors import UnavailableError
from services.router.sender import retry_seconds
from services.router.spool import Spool
from services.router.spool.register import Epoch

LOOK_SECONDS = 0.25

# Says that the lives of a log before this one are over. Raises UnavailableError.
EndLives = Callable[[Epoch], Awaitable[None]]

log = logging.getLogger("tollgate.past")


class Past:
    """Says it once, when the sender has shipped that much. Runs beside the sender, from `start` to `stop`."""

    def __init__(self, spool: Spool, end_lives: EndLives) -> None:
        self._spool = spool
        self._end_lives = end_lives
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="past")

    async def stop(self) -> None:
        """What was not said is said by the next life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._spool.outbox.has_settled_past:  # noqa: ASYNC110 the spool wakes nobody
            await asyncio.sleep(LOOK_SECONDS)
        await say_until_heard(self._end_lives, self._spool.epoch)
        self._spool.note_settled(self._spool.epoch)


async def say_until_heard(end_lives: EndLives, before: Epoch) -> None:
    """Says that the lives of a log before this one are over, for as long as it takes."""
    failure_count = 0
    while True:
        try:
            await end_lives(before)
        except UnavailableError as error:
            failure_count += 1
            log.warning("earlier lives of a log are not over for the ledger yet: %s", error.message)
            await asyncio.sleep(retry_seconds(failure_count))
        else:
            return
