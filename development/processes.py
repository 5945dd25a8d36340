"""Child processes: started, watched until they answer, ended in order. None outlives us."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

READY_SECONDS = 90
STOP_SECONDS = 15
POLL_SECONDS = 0.02
# Its code needs no site packages, and starts in 20 ms without them.
_END_WITH_PARENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("end_with_parent.py"))]


class StackError(Exception):
    """Why the stack cannot run, in one line, for the person in front of it."""


class Process:
    """One part of the stack. Can be started again after it ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        is_ready: Callable[[], Awaitable[bool]],
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log_path = log_path
        self._is_ready = is_ready
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self.is_running and self._child else None

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Returns when it answers. Raises StackError with its last line when it ends or stays silent."""
        with self._log_path.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *_END_WITH_PARENT,
                *self._command,
                env=os.environ | self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only us; we end the others in order
            )
        deadline = time.monotonic() + READY_SECONDS
        while not await self._is_ready():
            if not self.is_running:
                raise StackError(f"{self.name} did not start: {self._last_line()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} did not answer within {READY_SECONDS} seconds; see {self._log_path}")
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Asks it to finish, and insists after a while."""
        await self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends it and whatever it started, without a word, as a crash would."""
        await self._signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> None:
        if self._child is not None:
            await self._child.wait()

    async def _signal(self, number: signal.Signals) -> None:
        if self._child is None or self._child.returncode is not None:
            return
        if number is signal.SIGKILL:
            os.killpg(self._child.pid, number)
        else:
            self._child.send_signal(number)

    def _last_line(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended without a word; see {self._log_path}"
