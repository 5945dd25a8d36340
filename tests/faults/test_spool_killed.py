"""kill -9 at any moment: what was promised is there, once; what was not begun is not."""

import asyncio
import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.router.spool import Spool
from tests.integration.router.spool_records import SMALL, read_all

KILL_COUNT = 30
SEED = 20_261_123


@dataclass
class Oracle:
    """The ledger and the clients, as far as the spool is concerned."""

    begun: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    # What the ledger has, by request id.
    digest_by_id: dict[str, str] = field(default_factory=dict)
    # What came under each number, by producer and epoch.
    logs: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def hear(self, line: str) -> None:
        match line.split():
            case ["begun", request_id]:
                self.begun.add(request_id)
            case ["running", request_id]:
                self.running.add(request_id)
            case ["done", request_id]:
                self.done.add(request_id)
            case ["sent", producer, epoch, sequence, request_id, digest]:
                self.record(producer, epoch, int(sequence), request_id, digest)

    def record(self, producer: str, epoch: str, sequence: int, request_id: str, digest: str) -> None:
        numbered = self.logs.setdefault((producer, epoch), [])
        assert sequence <= len(numbered) + 1, f"sequence {sequence} of epoch {epoch} leaves a gap"
        if sequence <= len(numbered):
            assert numbered[sequence - 1] == request_id, f"sequence {sequence} of epoch {epoch} was used twice"
        else:
            assert request_id not in self.digest_by_id, f"{request_id} was sent under two numbers"
            numbered.append(request_id)
        assert self.digest_by_id.setdefault(request_id, digest) == digest, f"{request_id} was sent with other content"


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


async def sent_at_last(directory: Path) -> list[tuple[str, str, int, str, str]]:
    spool = Spool.open(directory, SMALL)
    rows = await read_all(spool)
    spool.close()
    return [
        (
            str(producer),
            str(epoch),
            sequence,
            record.request_id,
            hashlib.sha256(record.SerializeToString(deterministic=True)).hexdigest(),
        )
        for producer, epoch, sequence, record in rows
    ]


@pytest.mark.timeout(300)
def test_a_router_killed_thirty_times_under_load_loses_doubles_and_invents_nothing(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    oracle = Oracle()
    for life in range(KILL_COUNT):
        for line in run_until_killed(tmp_path, SEED + life, dice.uniform(0, 0.5)):
            oracle.hear(line)
    for row in asyncio.run(sent_at_last(tmp_path)):
        oracle.record(*row)

    recorded = set(oracle.digest_by_id)
    assert len(oracle.done) > 1_000
    assert oracle.done - recorded == set(), "a client saw these finish, and they are lost"
    assert oracle.running - recorded == set(), "these had begun and left no trace"
    assert recorded - oracle.begun == set(), "these were invented"
    assert not list(tmp_path.rglob("*.damaged"))
