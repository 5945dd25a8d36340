"""One sync for everybody who waits for one."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.router.spool.errors import SpoolFailedError
from services.router.spool.log import Log, Snapshot
from services.router.spool.metrics import SYNC_SECONDS
from services.router.spool.settings import SpoolSettings


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
        self._wanted = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "spool-sync")
        self._task: asyncio.Task[None] | None = None

    async def durable(self) -> None:
        """Returns when everything written until now is durable. Raises SpoolFailedError."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.wake()
        await waiter

    def wake(self) -> None:
        """Syncs soon, whether or not anybody waits. Needs a running event loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="spool-commit")
        self._wanted.set()

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
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown()
        self._committing += self._waiting
        try:
            self.commit_now()
        except OSError as error:
            self._resolve(str(error))
        self._resolve(None)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            start = time.monotonic()
            self._committing, self._waiting = self._waiting, []
            # The second try goes into a new segment.
            failure = await self._try() and await self._try()
            self._resolve(None if failure is None else str(failure))
            if failure is not None:
                self._wanted.set()
            interval = self._settings.commit_interval_seconds if failure is None else self._settings.retry_seconds
            await asyncio.sleep(start + interval - time.monotonic())

    async def _try(self) -> OSError | None:
        try:
            snapshot = self._log.prepare()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._timed_sync, snapshot)
        except OSError as error:
            self._log.fail(error)
            return error
        self._on_durable(self._log.settle(snapshot))
        return None

    def _timed_sync(self, snapshot: Snapshot) -> None:
        with SYNC_SECONDS.time():
            self._log.sync(snapshot)

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
