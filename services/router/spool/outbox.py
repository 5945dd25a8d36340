"""The sender's side of a log: finished records from disk, in order, until the ledger has committed them.

Sequences are contiguous within an epoch, and the ledger insists on it. Where one is missing (damage, a file deleted by
hand, a ledger restored from a backup) the rest of that epoch can never be sent under it; those records are written once
more, at the end of the log and under the current epoch. The ledger knows by their ids the ones it has.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import astuple, dataclass

from services.router.spool.entry import Damage, Entry, Kind
from services.router.spool.errors import SpoolFailedError
from services.router.spool.log import Log
from services.router.spool.metrics import DAMAGE, GAPS
from services.router.spool.register import Epoch
from services.router.spool.segment import HEADER_BYTES, Segment
from services.router.spool.slot import Slot

RECORD_COUNT_MAX = 1_000
BYTES_MAX = 4 * 1024 * 1024
AGE_RESOLUTION_SECONDS = 1.0

log = logging.getLogger("tollgate.spool")


@dataclass(frozen=True, slots=True)
class Batch:
    """Finished records of one epoch, in ascending sequence without gaps. Never empty."""

    epoch: Epoch
    first_sequence: int
    # UsageRecords without their sequence.
    payloads: tuple[bytes, ...]
    # Where in its segment the batch ends.
    end: int

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + len(self.payloads) - 1


class Outbox:
    """Reads a log from its oldest segment on, and removes segments that nobody needs any more.

    `evacuate` returns when nothing in a segment is needed any more; it raises SpoolFailedError.
    """

    def __init__(
        self,
        records: Log,
        slot: Slot,
        unsent_count: int,
        unfinished_count: int,
        evacuate: Callable[[Segment], Awaitable[None]],
    ) -> None:
        """This epoch begins with `unfinished_count` records of calls that an earlier life of the log had begun."""
        self._log = records
        self._slot = slot
        self._evacuate = evacuate
        # How many records wait for the ledger; exact whenever it is 0.
        self.depth = unsent_count
        self._ages = _Ages(unsent_count)
        self._arrived = asyncio.Event()
        self._position = HEADER_BYTES
        # What the ledger has committed; only a hint until the ledger has said so in this life.
        self._committed = slot.cursor.read()
        self._is_sure = False
        self._broken: set[Epoch] = set()
        self._inherited_sequence = unfinished_count
        self._first_epoch = records.epoch
        # True when the ledger has everything that earlier lives of the log wrote or began.
        self._has_settled_past = unsent_count == 0 and unfinished_count == 0
        self._has_rewritten = False

    @property
    def has_settled_past(self) -> bool:
        """Whether no record of an earlier life of this log can come any more.

        Never true in a life in which something was missing and the rest was written once more; the next life says it.
        """
        return self._has_settled_past and not self._has_rewritten

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest record has waited, to the second; 0 when none does."""
        return self._ages.oldest_seconds if self.depth else 0.0

    def note_durable(self, finished_count: int) -> None:
        """Records have come that may be sent."""
        if finished_count:
            self.depth += finished_count
            self._ages.add(finished_count)
            self._arrived.set()

    async def wait(self, seconds: float) -> None:
        """Returns when a record has come since the last `read`, or after a while."""
        with suppress(TimeoutError):
            # Not wait_for, which in Python 3.11 swallows a cancellation that comes with a record.
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def read(self) -> Batch | None:
        """The oldest records that are not committed, or None when there is nothing to send.

        Raises OSError when the disk fails. The same batch comes again until it has been committed.
        """
        self._arrived.clear()
        while await self._find_segment():
            segment = self._log.segments[0]
            if segment.header.epoch == self._first_epoch and self._inherited_sequence == 0:
                # Segments come in the order in which they were written.
                self._has_settled_past = True
            found = await asyncio.to_thread(_collect, segment, self._position)
            if segment.header.epoch is None or segment.header.epoch in self._broken:
                self._write_again(segment, found)
                continue
            batch = self._batch_of(segment, segment.header.epoch, found)
            if batch is not None:
                return batch
        return None

    def commit(self, batch: Batch, committed_sequence: int) -> None:
        """The ledger has dealt with the batch, and perhaps with more."""
        self._position = batch.end
        self._remember(batch.epoch, committed_sequence)
        if batch.epoch == self._first_epoch and committed_sequence >= self._inherited_sequence:
            self._has_settled_past = True
        self._leave(len(batch.payloads))

    def rewind(self, batch: Batch, committed_sequence: int) -> None:
        """The ledger has less than we thought: what follows must be sent again, if it is still here."""
        log.error("the ledger has committed sequence %d and was sent %d", committed_sequence, batch.first_sequence)
        self._position = HEADER_BYTES
        self._remember(batch.epoch, committed_sequence)

    async def _find_segment(self) -> bool:
        """Goes to the next segment with something unread, removing those that are done with."""
        while self._log.segments:
            segment = self._log.segments[0]
            if self._position < segment.durable_end:
                return True
            if not self._log.is_sealed(segment):
                break
            try:
                await self._evacuate(segment)
            except SpoolFailedError:
                return False
            self._log.remove_oldest()
            self._position = HEADER_BYTES
        self._leave(self.depth)
        # Unless this life has begun with records that are not durable yet.
        self._has_settled_past |= self._inherited_sequence == 0
        return False

    def _batch_of(self, segment: Segment, epoch: Epoch, found: list[Entry | Damage]) -> Batch | None:
        """The records up to a gap. None when there are none; then the position has moved, or the epoch is broken."""
        last = self._committed[1] if self._committed is not None and self._committed[0] == epoch else 0
        is_sure = self._is_sure
        payloads: list[bytes] = []
        end = self._position
        for item in found:
            if isinstance(item, Damage):
                _report(segment, item)
            elif item.kind is Kind.FINISHED and item.sequence > last:
                if is_sure and item.sequence != last + 1:
                    break
                payloads.append(item.payload)
                # Until then only the ledger could tell whether an older one is missing.
                last, is_sure = item.sequence, True
            end = item.end
        if payloads:
            return Batch(epoch, last - len(payloads) + 1, tuple(payloads), end)
        if end == self._position:
            self._break(epoch)
        self._position = end
        return None

    def _break(self, epoch: Epoch) -> None:
        GAPS.inc()
        log.error("records of producer %s, epoch %d, are missing; what follows gets new numbers", *astuple(epoch))
        if epoch == self._log.epoch:
            self._log.start_epoch(self._slot.next_epoch())
        self._broken.add(epoch)

    def _write_again(self, segment: Segment, found: list[Entry | Damage]) -> None:
        self._has_rewritten = True
        for item in found:
            if isinstance(item, Damage):
                _report(segment, item)
            elif item.kind is Kind.FINISHED:
                self._log.write_finished(item.payload)
                self._leave(1)
        self._position = found[-1].end
        # So that it stays until the copies are durable.
        self._log.copied_from.add(segment.number)

    def _remember(self, epoch: Epoch, committed_sequence: int) -> None:
        self._committed, self._is_sure = (epoch, committed_sequence), True
        # The file only saves sending again after a restart; the ledger would know.
        with suppress(OSError):
            self._slot.cursor.write(epoch, committed_sequence, durable=False)

    def _leave(self, record_count: int) -> None:
        self.depth = max(0, self.depth - record_count)
        self._ages.remove(record_count)


class _Ages:
    """When the records that wait became durable, to the second, in bounded memory."""

    def __init__(self, record_count: int) -> None:
        self._groups: deque[list[float]] = deque()
        self.add(record_count)

    @property
    def oldest_seconds(self) -> float:
        oldest = next(iter(self._groups), None)
        return time.monotonic() - oldest[0] if oldest else 0.0

    def add(self, record_count: int) -> None:
        now = time.monotonic()
        if not self._groups or now - self._groups[-1][0] >= AGE_RESOLUTION_SECONDS:
            self._groups.append([now, 0])
        self._groups[-1][1] += record_count

    def remove(self, record_count: int) -> None:
        while self._groups and self._groups[0][1] <= record_count:
            record_count -= int(self._groups.popleft()[1])
        if self._groups:
            self._groups[0][1] -= record_count


def _collect(segment: Segment, start: int) -> list[Entry | Damage]:
    """What one batch can hold, and what lies between."""
    end = min(segment.durable_end, start + BYTES_MAX)
    collected: list[Entry | Damage] = []
    finished_count = 0
    for found in segment.scan(start, end):
        if isinstance(found, Damage) and found.is_tail and end < segment.durable_end:
            # Cut off by us in mid-entry, unless it is all there is.
            return collected or [next(segment.scan(start, segment.durable_end))]
        collected.append(found)
        finished_count += isinstance(found, Entry) and found.kind is Kind.FINISHED
        if finished_count == RECORD_COUNT_MAX:
            break
    # Zeros where entries were durable are damage too.
    return collected or [Damage(start, segment.durable_end, is_tail=True)]


def _report(segment: Segment, damage: Damage) -> None:
    """Counts damage that was not there when the spool was opened."""
    if not segment.is_damaged:
        DAMAGE.inc()
        log.error("%s is damaged from byte %d to %d", segment.path, damage.start, damage.end)
        segment.is_damaged = True
