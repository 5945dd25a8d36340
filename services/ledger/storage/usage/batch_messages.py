"""What the ledger and the process that writes its batches say to each other, over pipes.

Pickled, which is fast, and safe: both ends are of one program. In a module that neither end runs as its main one: its
classes would be others there.
"""

import pickle
import struct
from datetime import datetime
from typing import NamedTuple

from services.ledger.storage.usage.contents import PreparedBatch
from services.ledger.storage.usage.ingest import Outcome, Recount

# What comes before each message.
LENGTH = struct.Struct("!I")


class Opening(NamedTuple):
    """The first message. It comes this way, not as an argument, because a database's address may hold a password."""

    database_url: str
    log_level: str


class Work(NamedTuple):
    """Every other one."""

    batch: PreparedBatch
    receipt_time: datetime


# What is said to a Work: what became of it, or the error to raise.
Answer = Outcome | Recount | Exception


def frame(message: Opening | Work | Answer) -> bytes:
    """The message with its length before it."""
    packed = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(packed)) + packed
