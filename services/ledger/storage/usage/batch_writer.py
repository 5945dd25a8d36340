"""Has batches written by a process of their own."""

import asyncio
import logging
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from datetime import datetime

from services.common.errors import UnavailableError
from services.ledger.storage.usage.batch_messages import LENGTH, Answer, Opening, Work, frame
from services.ledger.storage.usage.contents import PreparedBatch
from services.ledger.storage.usage.ingest import Outcome, Recount

TRIES = 3
# Longer than the process itself keeps trying while the database answers at all.
ANSWER_SECONDS = 180.0
CLOSE_SECONDS = 30.0
_COMMAND = (sys.executable, "-m", "services.ledger.storage.usage.batch_process")

log = logging.getLogger("tollgate.ledger.batches")


class BatchWriter:
    """Sends batches to the process and takes its answers, in turn. Lives from `start` to `close`."""

    def __init__(self, database_url: str, log_level: str) -> None:
        self._opening = frame(Opening(database_url, log_level))
        self._process: Process | None = None
        # Whoever has sent first is answered first: waiting for a lock is in order of arrival too.
        self._sending = asyncio.Lock()
        self._receiving = asyncio.Lock()

    async def start(self) -> None:
        """So that the first batch does not wait for it."""
        async with self._sending:
            await self._running()

    async def write(self, batch: PreparedBatch, receipt_time: datetime) -> Outcome | Recount:
        """What `Ingest.record` says of the batch, and raises: CannotStoreError. Raises UnavailableError.

        A process that ends is started anew, and what it was doing is done again: that is right, and safe.
        """
        work = frame(Work(batch, receipt_time))
        for tries_left in reversed(range(TRIES)):
            try:
                answer = await self._answer(work)
            except (OSError, EOFError, TimeoutError) as error:
                log.warning("the writing process ended", extra={"error": repr(error), "tries_left": tries_left})
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise UnavailableError("The ledger cannot write right now; try again.")

    async def close(self) -> None:
        """Lets it finish what was begun."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await process.wait()
        except TimeoutError:
            _kill(process)

    async def _answer(self, work: bytes) -> Answer:
        process = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async with self._sending:
                    process = await self._running()
                    await _send(process, work)
                async with self._receiving:
                    return await _receive(process)
        except BaseException:
            # Nobody could tell which question it would answer next.
            if process is not None:
                self._give_up(process)
            raise

    def _give_up(self, process: Process) -> None:
        if self._process is process:
            self._process = None
        _kill(process)

    async def _running(self) -> Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=PIPE, stdout=PIPE)
            await _send(self._process, self._opening)
        return self._process


async def _send(process: Process, message: bytes) -> None:
    # What uvloop would say of a closed pipe is no OSError.
    if process.stdin is None or process.stdin.is_closing():
        raise BrokenPipeError("the process has ended")
    process.stdin.write(message)
    await process.stdin.drain()


async def _receive(process: Process) -> Answer:
    if process.stdout is None:
        raise ValueError("a process without a pipe")
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    answer: Answer = pickle.loads(await process.stdout.readexactly(length))  # noqa: S301 ours
    return answer


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
