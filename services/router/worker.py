"""What each worker process runs."""

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import sys

import uvloop

from services.common.grpc_server import stop_signal
from services.common.logs import start_logging
from services.common.settings import SettingError
from services.router.settings import WRONG_SETTING, Settings
from services.router.wiring import Worker

_PR_SET_PDEATHSIG = 1
# For all connections that the HTTP server takes, and those to providers.
_FILES = 65_536
_COLLECTION_THRESHOLDS = (5_000, 20, 50)


def work(settings: Settings) -> int:
    """Serves until a signal says to stop. Returns the process's exit code."""
    _die_with_parent()
    _take_many_files()
    start_logging("router", settings.log_level)
    try:
        uvloop.run(_serve(settings))
    except SettingError as error:
        print(f"router: {error}", file=sys.stderr)
        return WRONG_SETTING
    return 0


async def _serve(settings: Settings) -> None:
    stopped = stop_signal()
    worker = await Worker.start(settings)
    _collect_rarely()
    await stopped.wait()
    await worker.stop(settings.drain_notice_seconds)


def _collect_rarely() -> None:
    """What is there at the start stays, and calls make few cycles: looking for them often costs an eighth of a call."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)


def _die_with_parent() -> None:
    """A supervisor that is killed takes its workers along: left alone they would hold addresses and spool."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        # It was killed before it could be said.
        sys.exit(1)


def _take_many_files() -> None:
    """Often a process gets a thousand, and more for the asking: idle clients would take all, and calls find none."""
    given, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    if given != resource.RLIM_INFINITY and given < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
