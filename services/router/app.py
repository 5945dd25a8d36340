"""What Granian runs in each worker process."""

import asyncio
import ctypes
import gc
import os
import signal
import sys

from granian.rsgi import HTTPProtocol, Scope

from services.common.logs import start_logging
from services.common.settings import SettingError
from services.router.settings import Settings
from services.router.wiring import Worker

_PR_SET_PDEATHSIG = 1
_COLLECTION_THRESHOLDS = (5_000, 20, 50)


class Application:
    """One worker's RSGI application. Granian calls `__rsgi_init__` before the first request and `__rsgi_del__` after
    the last one has been answered."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        _die_with_parent()
        try:
            settings = Settings.read()
            start_logging("router", settings.log_level)
            self._worker = loop.run_until_complete(Worker.start(settings))
        except SettingError as error:
            print(f"router: {error}", file=sys.stderr)
            sys.exit(2)
        _collect_rarely()
        self._handle = self._worker.http.handle
        # Granian stops on either signal. We put ourselves before one, and pass on to the other when it is time.
        loop.add_signal_handler(signal.SIGTERM, self._drain, loop, settings.drain_notice_seconds)

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        await self._handle(scope, protocol)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._worker.stop())

    def _drain(self, loop: asyncio.AbstractEventLoop, notice_seconds: int) -> None:
        """Tells everybody, and after the notice lets Granian take no more connections and finish what runs."""
        self._worker.begin_drain(notice_seconds)
        loop.call_later(notice_seconds, os.kill, os.getpid(), signal.SIGINT)


def _collect_rarely() -> None:
    """What is there at the start stays, and calls make few cycles: looking for them often costs an eighth of a call."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)


def _die_with_parent() -> None:
    """A supervisor that is killed takes its workers along: left alone they would hold addresses and spool."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


application = Application()
