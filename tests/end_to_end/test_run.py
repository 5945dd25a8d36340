"""`make run`, as a stranger sees it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.addresses import Addresses
from tests.end_to_end.conftest import open_directory

SECONDS = 150


class Run:
    """One `python -m development` from its first line to its last."""

    def __init__(self, directory: Path) -> None:
        free = Addresses.free()
        addresses = {f"TOLLGATE_{name.upper()}_ADDRESS": getattr(free, name) for name in Addresses.__dataclass_fields__}
        self.url = f"http://{free.front_door}"
        self.output = directory / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "development"],
                env=os.environ | addresses | {"TOLLGATE_STATE_DIRECTORY": str(directory / "state"), "COLUMNS": "200"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text()

    def until(self, words: str) -> str:
        deadline = time.monotonic() + SECONDS
        while words not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)
        return self.text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=SECONDS) == 0, self.text()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with open_directory() as made:
        (made / "state").mkdir()
        yield made


def processes_of(directory: Path) -> list[str]:
    """Command lines of processes that still work in the state directory, or were started for it."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(directory) in line]


@pytest.fixture(scope="module")
def first_start(directory: Path) -> str:
    """What the first start printed. It has ended, and its curl lines were followed before."""
    run = Run(directory)
    text = run.until("Ctrl-C stops it")
    commands = re.findall(r"^  (curl .*)$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["bash", "-c", f"{command} -sf"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("{")
    run.interrupt()
    return run.text()


def test_a_first_start_shows_calls_bill_activity_and_how_to_go_on(first_start: str, directory: Path) -> None:
    for words in (
        "The calls",
        "The bill",
        "CACHED_INPUT",
        "DATA_STORAGE",
        "GET /activity",
        "which is what was charged",
        "Everything has stopped.",
    ):
        assert words in first_start
    assert processes_of(directory) == []


@pytest.mark.usefixtures("first_start")
def test_a_second_start_finds_its_data_again(directory: Path) -> None:
    run = Run(directory)
    text = run.until("Ctrl-C stops it")
    run.interrupt()

    (total_row,) = re.findall(r"all +│ +(\d+) +│", text)
    # Five calls of each start, and the one that the first curl line made.
    assert total_row == "11"


async def test_an_interrupt_in_the_middle_of_a_start_leaves_no_process(state_directory: Path) -> None:
    (state_directory / "state").mkdir()
    run = Run(state_directory)
    run.until("PostgreSQL")
    await asyncio.sleep(0.5)

    run.interrupt()

    assert processes_of(state_directory) == []
