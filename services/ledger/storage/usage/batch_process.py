"""The process that writes batches, one after the other: `python -m services.ledger.storage.usage.batch_process`.

In a process of its own, because two threads of one interpreter mostly wait for each other: the one that writes, for
the interpreter after each of forty statements; the one that prices, while the writer has it.

Takes its work from standard input, as `BatchWriter` sends it, answers on standard output, and ends when the input does.
Signals are the business of whoever started it.
"""

import logging
import pickle
import signal
import sys
from collections.abc import Iterator
from queue import Queue
from threading import Thread
from typing import BinaryIO

from services.common.errors import UnavailableError
from services.common.logs import start_logging
from services.ledger.storage.usage.batch_messages import LENGTH, Answer, Opening, Work, frame
from services.ledger.storage.usage.contents import CannotStoreError
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.storage.writer import WritingConnection

log = logging.getLogger("tollgate.ledger.batches")


def main() -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    opening = _next_message(source)
    if not isinstance(opening, Opening):
        return
    start_logging("ledger", opening.log_level)
    connection, ingest = WritingConnection(opening.database_url, prepare_session), Ingest()
    for work in _read_ahead(source):
        sink.write(frame(_done(connection, ingest, work)))
        sink.flush()
    connection.close()


def _read_ahead(source: BinaryIO) -> Iterator[Work]:
    """All work there is, each piece read while the one before is done.

    What lies between two processes holds a tenth of a batch. The rest comes in as many steps as its sender finds time
    for between other things, and nothing is written meanwhile unless it is read before its turn.
    """
    read: Queue[object] = Queue(maxsize=1)

    def read_all() -> None:
        try:
            while isinstance(work := _next_message(source), Work):
                read.put(work)
        finally:
            read.put(None)

    Thread(target=read_all, name="read-ahead", daemon=True).start()
    while isinstance(work := read.get(), Work):
        yield work


def _next_message(source: BinaryIO) -> object:
    """None at the end."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    packed = source.read(length)
    return pickle.loads(packed) if len(packed) == length else None  # noqa: S301 of our own parent


def _done(connection: WritingConnection, ingest: Ingest, work: Work) -> Answer:
    try:
        return connection.run(lambda opened: ingest.record(opened, work.batch, work.receipt_time))
    except (UnavailableError, CannotStoreError) as error:
        return error
    except Exception as error:
        log.exception("bug")
        return RuntimeError(f"a batch was not written: {error}")


if __name__ == "__main__":
    main()
