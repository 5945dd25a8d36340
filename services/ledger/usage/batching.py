"""Joins calls that come at the same time, so that they share one transaction."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.common.errors import UnavailableError

# What a batch waits for others to join it, where it is small.
JOIN_SECONDS = 0.005
# A batch that has this many waits no longer.
JOIN_SIZE = 1_000
BATCH_SIZE_MAX = 2_000
# One is being written; the next, once it is full, is made ready meanwhile.
BATCHES_AT_ONCE = 2
# About two seconds of work.
QUEUE_SIZE_MAX = 30_000
DEADLINE_SECONDS = 30.0

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
# Returns a result, or the error to raise, for each item in its order.
Write = Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT | Exception]]]


@dataclass(slots=True)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    size: int
    result: asyncio.Future[ResultT]


class Batcher(Generic[ItemT, ResultT]):
    """Hands items to `write`, as many at once as came while it was busy. Lives from `start` to `close`.

    `write` is called in the order of arrival, and once more while it is busy where that many wait: what it does before
    its turn comes, it does then.
    """

    def __init__(self, write: Write[ItemT, ResultT]) -> None:
        self._write = write
        self._queue: deque[_Waiting[ItemT, ResultT]] = deque()
        self._queue_size = 0
        self._writing_count = 0
        # Something arrived or was written, or the end has come.
        self._changed = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="batcher")

    @property
    def queue_size(self) -> int:
        """The sum of the sizes of what waits to be written."""
        return self._queue_size

    async def submit(self, item: ItemT, size: int) -> ResultT:
        """What became of the item. Raises UnavailableError when the queue is full or the deadline passes.

        After the deadline the item may still be written; whoever submits it again must expect that.
        """
        if self._closed or self._queue_size + size > QUEUE_SIZE_MAX:
            raise UnavailableError("The ledger has more to record than it can take; try again.")
        result: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(item, size, result)
        self._queue.append(waiting)
        self._queue_size += size
        self._changed.set()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await result
        except TimeoutError:
            raise UnavailableError("The ledger could not record this in time; try again.") from None

    async def close(self) -> None:
        """Takes nothing new, writes what waits, and ends."""
        self._closed = True
        self._changed.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as writing:
            while self._queue or not self._closed:
                if not self._is_due():
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                if self._queue_size < JOIN_SIZE and not self._closed:
                    await asyncio.sleep(JOIN_SECONDS)
                if batch := self._take():
                    self._writing_count += 1
                    writing.create_task(self._write_batch(batch))

    def _is_due(self) -> bool:
        """Whether to begin a batch now, with what is there."""
        if self._writing_count == 0:
            return bool(self._queue)
        return self._writing_count < BATCHES_AT_ONCE and self._queue_size >= JOIN_SIZE

    def _take(self) -> list[_Waiting[ItemT, ResultT]]:
        """The first that wait, up to a batch's size, but for those nobody waits for any more."""
        batch: list[_Waiting[ItemT, ResultT]] = []
        size = 0
        while self._queue and (not batch or size + self._queue[0].size <= BATCH_SIZE_MAX):
            waiting = self._queue.popleft()
            self._queue_size -= waiting.size
            if not waiting.result.done():
                batch.append(waiting)
                size += waiting.size
        return batch

    async def _write_batch(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        outcomes: Sequence[ResultT | Exception]
        try:
            outcomes = await self._write([waiting.item for waiting in batch])
        except Exception as error:
            outcomes = [error] * len(batch)
        self._writing_count -= 1
        self._changed.set()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.result.done():
                continue
            if isinstance(outcome, Exception):
                waiting.result.set_exception(outcome)
            else:
                waiting.result.set_result(outcome)
