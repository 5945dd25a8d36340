"""A router that does nothing but record calls, until it is killed. Says on standard output what it has promised.

begun <request id>                               before the call begins
running <request id>                             begin returned
done <request id>                                finish returned: the client has its answer
sent <producer> <epoch> <sequence> <request id> <digest>   a record reached the ledger; not committed yet
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from services.router.spool import Spool
from tests.faults.spool_oracle import digest_of
from tests.integration.router.spool_records import SMALL, a_begun, a_finished, rows_of

CALLER_COUNT = 16


def say(*words: object) -> None:
    """Straight to the pipe: what was said survives whatever happens next."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def call_for_ever(spool: Spool, dice: random.Random) -> None:
    while True:
        begun = a_begun(workflow="x" * dice.randrange(64))
        say("begun", begun.request_id)
        spool.begin(begun, credit_funded=False)
        say("running", begun.request_id)
        # Most calls are short; some outlive many segments.
        await asyncio.sleep(0 if dice.random() < 0.95 else dice.random() / 2)
        await spool.finish(a_finished(begun))
        say("done", begun.request_id)


async def ship_for_ever(spool: Spool, dice: random.Random) -> None:
    while True:
        await spool.outbox.wait(0.05)
        while (batch := await spool.outbox.read()) is not None:
            for producer, epoch, sequence, record in rows_of(batch):
                digest = digest_of(record)
                say("sent", producer, epoch, sequence, record.request_id, digest)
            await asyncio.sleep(dice.random() / 50)
            spool.outbox.commit(batch, batch.last_sequence)


async def main(directory: Path, seed: int) -> None:
    dice = random.Random(seed)
    spool = Spool.open(directory, SMALL)
    callers = (call_for_ever(spool, dice) for _ in range(CALLER_COUNT))
    await asyncio.gather(ship_for_ever(spool, dice), *callers)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
