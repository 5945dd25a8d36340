"""kill -9 at any moment: what was promised is there, once; what was not begun is not."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from services.router.spool import Spool
from tests.faults.spool_oracle import Oracle, Row
from tests.integration.router.spool_records import SMALL, read_all

KILL_COUNT = 30
SEED = 20_261_123


def hear(oracle: Oracle, line: str) -> None:
    """What `spool_writer` said."""
    match line.split():
        case ["begun", request_id]:
            oracle.begun.add(request_id)
        case ["running", request_id]:
            oracle.running.add(request_id)
        case ["done", request_id]:
            oracle.done.add(request_id)
        case ["sent", producer, epoch, sequence, request_id, digest]:
            oracle.record(producer, epoch, int(sequence), request_id, digest)


def run_until_killed(directory: Path, seed: int, seconds: float) -> Iterable[str]:
    """Everything a writer said before it was killed."""
    command = [sys.executable, "-m", "tests.faults.spool_writer", str(directory), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    reader = threading.Thread(target=lines.extend, args=(process.stdout,))
    reader.start()
    time.sleep(seconds)
    process.kill()
    reader.join()
    process.stdout.close()
    assert process.wait() == -9, "the writer died by itself"
    # The last line may be cut off in the middle.
    return [line for line in lines if line.endswith("\n")]


async def sent_at_last(directory: Path) -> list[Row]:
    spool = Spool.open(directory, SMALL)
    rows = await read_all(spool)
    spool.close()
    return rows


@pytest.mark.timeout(300)
def test_a_router_killed_thirty_times_under_load_loses_doubles_and_invents_nothing(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    oracle = Oracle()
    for life in range(KILL_COUNT):
        for line in run_until_killed(tmp_path, SEED + life, dice.uniform(0, 0.5)):
            hear(oracle, line)
    oracle.record_rows(asyncio.run(sent_at_last(tmp_path)))

    assert len(oracle.done) > 1_000
    oracle.check_promises()
    assert oracle.running - set(oracle.digest_by_id) == set(), "these had begun and left no trace"
    assert not list(tmp_path.rglob("*.damaged"))
