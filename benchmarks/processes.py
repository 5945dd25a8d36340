"""What a process and those it started spend."""

from contextlib import suppress

import psutil


class ProcessTree:
    """A process and all below it, looked at anew each time."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_seconds(self) -> float:
        """User and system time since the start; of those that ended too, where their parent has noticed."""
        return sum(sum(times[:4]) for times in self._cpu_times())

    def memory_mib(self) -> list[int]:
        """Resident memory of each."""
        return [each.memory_info().rss // 2**20 for each in self._all()]

    def written_bytes(self) -> int:
        """What it made the disk write, in whole pages."""
        return sum(each.io_counters().write_bytes for each in self._all())

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _cpu_times(self) -> list[tuple[float, ...]]:
        found = []
        for each in self._all():
            with suppress(psutil.NoSuchProcess):
                found.append(tuple(each.cpu_times()))
        return found
