"""One sync for everybody who waits for one.

Made of callbacks and one thread rather than of a task and an executor: a sync is the dearest thing that a call does,
and what those put around it cost as much again.
"""

import asyncio
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from services.router.spool.errors import SpoolFailedError
from services.router.spool.log import Log, Snapshot
from services.router.spool.metrics import SYNC_SECONDS
from services.router.spool.settings import SpoolSettings

# A failed try is followed by one into a new segment.
TRIES = 2


class DurableListener(Protocol):
    """Told on the event loop how many finished records have become durable."""

    def __call__(self, finished_count: int) -> None: ...


class GroupCommit:
    """Syncs a log, at most once per interval, for as long as anybody waits or the disk fails.

    Who comes while a sync runs waits for the next one, since the running one may not cover it.
    """

    def __init__(self, log: Log, settings: SpoolSettings, on_durable: DurableListener) -> None:
        self._log = log
        self._settings = settings
        self._on_durable = on_durable
        self._waiting: list[asyncio.Future[None]] = []
        self._committing: list[asyncio.Future[None]] = []
        # From the first that waits until the interval after its sync is over.
        self._is_busy = False
        self._is_wanted = False
        self._is_closed = False
        self._try_count = 0
        self._start = 0.0
        self._thread: Thread | None = None
        # What to sync, and who is told; None ends the thread.
        self._requests: SimpleQueue[tuple[Snapshot, asyncio.AbstractEventLoop] | None] = SimpleQueue()

    async def durable(self) -> None:
        """Returns when everything written until now is durable. Raises SpoolFailedError."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.wake()
        await waiter

    def wake(self) -> None:
        """Syncs soon, whether or not anybody waits. Needs a running event loop."""
        loop = asyncio.get_running_loop()
        self._is_wanted = True
        if not self._is_busy:
            self._is_busy = True
            # Not at once: who writes in the same turn of the loop is to share the sync.
            loop.call_soon(self._begin, loop)

    def commit_now(self) -> None:
        """Syncs at once, in this thread; for when no event loop runs yet. Raises OSError."""
        snapshot = self._log.prepare()
        try:
            self._log.sync(snapshot)
        except OSError as error:
            self._log.fail(error)
            raise
        self._on_durable(self._log.settle(snapshot))

    def close(self) -> None:
        """Waits for the running sync and makes one more, for whoever still waits."""
        self._is_closed = True
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
        self._committing += self._waiting
        try:
            self.commit_now()
        except OSError as error:
            self._resolve(str(error))
        self._resolve(None)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            return
        self._is_wanted = False
        self._start = time.monotonic()
        self._committing, self._waiting = self._waiting, []
        self._try_count = 0
        self._try(loop)

    def _try(self, loop: asyncio.AbstractEventLoop) -> None:
        self._try_count += 1
        try:
            snapshot = self._log.prepare()
        except OSError as error:
            self._failed(error, loop)
            return
        if self._thread is None:
            self._thread = Thread(target=self._sync_on_request, name="spool-sync", daemon=True)
            self._thread.start()
        self._requests.put((snapshot, loop))

    def _sync_on_request(self) -> None:
        """The thread."""
        while (request := self._requests.get()) is not None:
            snapshot, loop = request
            failure: OSError | None = None
            try:
                with SYNC_SECONDS.time():
                    self._log.sync(snapshot)
            except OSError as error:
                failure = error
            with suppress(RuntimeError):  # The loop was closed first; then nobody waits.
                loop.call_soon_threadsafe(self._synced, snapshot, failure, loop)

    def _synced(self, snapshot: Snapshot, failure: OSError | None, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            return  # It has been synced and told once more.
        if failure is not None:
            self._failed(failure, loop)
            return
        self._on_durable(self._log.settle(snapshot))
        self._resolve(None)
        self._rest(self._settings.commit_interval_seconds, loop)

    def _failed(self, error: OSError, loop: asyncio.AbstractEventLoop) -> None:
        self._log.fail(error)
        if self._try_count < TRIES:
            self._try(loop)
            return
        self._resolve(str(error))
        self._is_wanted = True
        self._rest(self._settings.retry_seconds, loop)

    def _rest(self, interval_seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(max(0.0, self._start + interval_seconds - time.monotonic()), self._rested, loop)

    def _rested(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_busy = self._is_wanted
        if self._is_wanted:
            self._begin(loop)

    def _resolve(self, why_failed: str | None) -> None:
        resolved, self._committing = self._committing, []
        for waiter in resolved:
            # One that is done was cancelled: its caller left, its record stays.
            if waiter.done():
                continue
            if why_failed is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(SpoolFailedError(why_failed))
