"""Starts the workers, again where one ends, and stops them."""

import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

from services.router.settings import WRONG_SETTING, Settings

# What a worker may take beyond its drain time, to send and close, before it is killed.
STOP_SECONDS = 10
RESPAWN_SECONDS = 1.0
LOOK_SECONDS = 1.0
# A replacement that ends so soon would end again.
YOUNG_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Made of a process that has no threads and has loaded little.
_CONTEXT = multiprocessing.get_context("fork")

log = logging.getLogger("tollgate.supervisor")


@dataclass(frozen=True, slots=True)
class _Child:
    process: ForkProcess
    start: float
    is_replacement: bool

    @property
    def ends_early(self) -> bool:
        return self.is_replacement and time.monotonic() - self.start < YOUNG_SECONDS


class Supervisor:
    """Of all workers of this machine's router."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: list[_Child] = []
        self._exit_code = 0
        # When those are killed that were told to stop; monotonic.
        self._kill_time = math.inf

    def run(self) -> int:
        """Until a signal comes, or workers cannot live. Returns the process's exit code."""
        for number in _SIGNALS:
            signal.signal(number, self._take_signal)
        for _ in range(self._settings.worker_count):
            self._start_one(is_replacement=False)
        while self._children:
            left = self._kill_time - time.monotonic()
            # Not for ever: a signal sets another time, but does not end the wait.
            wait([child.process.sentinel for child in self._children], min(max(0.01, left), LOOK_SECONDS))
            if time.monotonic() >= self._kill_time:
                self._send(signal.SIGKILL)
            for child in [one for one in self._children if not one.process.is_alive()]:
                self._bury(child)
        return self._exit_code

    @property
    def _is_stopping(self) -> bool:
        return not math.isinf(self._kill_time)

    def _start_one(self, *, is_replacement: bool) -> None:
        with _no_signals():
            if self._is_stopping:
                return
            process = _CONTEXT.Process(target=_work, args=(self._settings,))
            process.start()
            self._children.append(_Child(process, time.monotonic(), is_replacement))

    def _bury(self, child: _Child) -> None:
        self._children.remove(child)
        code = child.process.exitcode or 0
        if self._is_stopping:
            return
        if code != WRONG_SETTING:
            log.error("a worker ended", extra={"exit_code": code})
        if self._settings.worker_count == 1 or code == WRONG_SETTING or child.ends_early:
            # Whoever watches over this process knows better what to do.
            self._exit_code = max(1, code)
            self._stop()
        else:
            time.sleep(RESPAWN_SECONDS)
            self._start_one(is_replacement=True)

    def _take_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        if not self._is_stopping:
            drain_seconds = self._settings.drain_notice_seconds + self._settings.grpc.drain_seconds
            self._kill_time = time.monotonic() + drain_seconds + STOP_SECONDS
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for child in self._children:
            if child.process.pid is not None and child.process.is_alive():
                with suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(child.process.pid, number)


@contextmanager
def _no_signals() -> Iterator[None]:
    """A signal that comes between a child's birth and its being known would reach only half of the family."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _work(settings: Settings) -> None:
    """In the new process."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    from services.router.worker import work  # noqa: PLC0415 the supervisor needs nothing of all that

    sys.exit(work(settings))
