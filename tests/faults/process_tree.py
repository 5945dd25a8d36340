"""What the kernel knows of a process and everything it started."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def tree_of(pid: int) -> list[int]:
    """The process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                # The name in parentheses may hold anything; what follows it are plain fields.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, ()))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signals each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def is_there(pid: int) -> bool:
    """True also for a process that has ended and was not waited for."""
    return (_PROC / str(pid)).exists()


def handle_count(pids: Iterable[int]) -> int:
    """Open files and sockets of all of them."""
    return sum(len(list((_PROC / str(pid) / "fd").iterdir())) for pid in pids)


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of all of them; what they share counts for each."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) for pid in pids) * page_bytes
