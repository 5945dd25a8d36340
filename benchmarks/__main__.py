"""`make bench`: runs every benchmark of this folder, one after the other, and prints what they found as one table.

    python -m benchmarks [name …]

A benchmark is a module that can be run by itself. The rows it prints by `benchmarks.figures` are its part of the table.
One that fails, or takes too long, is a row that says so. What each wrote is kept under `.benchmarks/`.
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Row, rows_in

FOLDER = Path(__file__).parent
OUTPUT = FOLDER.parent / ".benchmarks"
TOTAL_SECONDS_MAX = 14 * 60
# So that one that hangs leaves time for those after it.
ONE_SECONDS_MAX = 6 * 60
STOP_SECONDS_MAX = 30
WIDTH_MIN = 170


def every_name() -> list[str]:
    """The modules that do something when they are run."""
    modules = (path for path in FOLDER.glob("*.py") if path.name != "__main__.py")
    return sorted(path.stem for path in modules if '\nif __name__ == "__main__":' in path.read_text())


def run(name: str, seconds_max: float) -> tuple[list[Row], str]:
    """What it found, and why it failed, empty when it did not."""
    found, complaints = OUTPUT / f"{name}.txt", OUTPUT / f"{name}.errors.txt"
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with found.open("wb") as output, complaints.open("wb") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            _stop(process)
            return list(rows_in(found.read_text())), f"took more than {seconds_max:.0f} s"
        except BaseException:
            _stop(process)
            raise
    last = (complaints.read_text().strip().splitlines() or [f"ended with {process.returncode}"])[-1]
    return list(rows_in(found.read_text())), last if process.returncode else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would, so that it stops what it started; by force after a while."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS_MAX)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {system}"


def main(chosen: Sequence[str]) -> int:
    OUTPUT.mkdir(exist_ok=True)
    console = Console(width=max(WIDTH_MIN, Console().width), highlight=False)
    table = Table("benchmark", "what", "figure", "goal", box=box.MARKDOWN)
    deadline, failed = time.monotonic() + TOTAL_SECONDS_MAX, False
    date = datetime.now(UTC)
    for name in chosen or every_name():
        start, load = time.monotonic(), os.getloadavg()[0]
        print(f"{name} … (load {load:.1f})", file=sys.stderr, flush=True)
        rows, failure = run(name, max(1.0, min(ONE_SECONDS_MAX, deadline - start)))
        for row in rows:
            table.add_row(name, row.what, row.figure, row.goal)
        if failure:
            table.add_row(name, "FAILED", failure)
        failed = failed or bool(failure)
        print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    console.print(f"{machine()}; {date:%Y-%m-%d %H:%M} UTC\n", markup=False)
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
