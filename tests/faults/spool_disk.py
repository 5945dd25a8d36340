"""A small disk for a spool, that can run full while it is used."""

import os
import resource
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DISK_BYTES = 64 * 1024 * 1024
_FILE_BYTES_MAX_WHEN_FULL = 4096


@dataclass
class SpoolDisk:
    """A file system in memory where we may mount one; else a limit on the size of new files, which fails alike."""

    directory: Path
    _is_mounted: bool = field(default=False, init=False)
    _limited: list[int] = field(default_factory=list, init=False)

    def mount(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and "TOLLGATE_FAULTS_NO_MOUNT" not in os.environ:
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.directory)]
            self._is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0

    def unmount(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=True, capture_output=True)

    def fill(self, users: list[int]) -> None:
        """No byte more can be allocated by these processes."""
        if not self._is_mounted:
            self._limited = users
            self._limit(_FILE_BYTES_MAX_WHEN_FULL)
            return
        with self._ballast.open("wb", buffering=0) as ballast, suppress(OSError):
            piece = bytes(64 * 1024)
            while ballast.write(piece) > 0:
                pass

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)
        self._limit(resource.RLIM_INFINITY)
        self._limited = []

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"

    def _limit(self, size: int) -> None:
        for pid in self._limited:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
