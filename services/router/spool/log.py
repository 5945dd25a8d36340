"""The segments of one slot in order: entries go in at the newest, the oldest is removed.

After a failed write or sync no segment with bytes in doubt is trusted again: it is cut back to what an earlier sync
made durable, and everything in doubt is written once more, from memory, into a new segment. Whatever the kernel then
holds of the old pages is never asked for. Until that has succeeded, finished records wait in memory and nothing new is
let in.
"""

import errno
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from services.router.spool.entry import OVERHEAD_BYTES, Kind, check_payload
from services.router.spool.metrics import BYTES, FAILURES
from services.router.spool.register import Epoch
from services.router.spool.segment import HEADER_BYTES, Segment
from services.router.spool.settings import SpoolSettings

log = logging.getLogger("tollgate.spool")


@dataclass(slots=True)
class _Written:
    """An entry that no sync has covered yet."""

    epoch: Epoch
    kind: Kind
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one sync makes durable."""

    segments: tuple[tuple[Segment, int], ...]
    entry_count: int


class Log:
    """Lives as long as its spool. Everything happens on the event loop but `sync`."""

    def __init__(self, directory: Path, epoch: Epoch, settings: SpoolSettings, recovered: Iterable[Segment]) -> None:
        self.epoch = epoch
        # Oldest first.
        self.segments = deque(recovered)
        # Segments with something that was written again and may not be durable elsewhere yet.
        self.copied_from: set[int] = set()
        # Why nothing can be written; None when all is well.
        self.failure: OSError | None = None
        self._directory = directory
        self._settings = settings
        self._active: Segment | None = None
        self._spares: deque[Segment] = deque()
        self._unsynced: list[Segment] = []
        self._undurable: deque[_Written] = deque()
        self._next_number = max((segment.number for segment in self.segments), default=0) + 1
        self._next_sequence = 1
        self._allocated = 0
        self._count_bytes()

    @property
    def bytes_used(self) -> int:
        """What entries take, and what of old segments cannot be used again."""
        unused = sum(spare.size for spare in self._spares)
        return self._allocated - unused - (self._active.room if self._active else 0)

    @property
    def active_number(self) -> int:
        """The segment that was written to last."""
        return self._active.number if self._active else 0

    def is_sealed(self, segment: Segment) -> bool:
        """True when nothing will be appended to it, and all of it is durable."""
        return segment is not self._active and segment.durable_end == segment.end

    def make_room(self, needed: int) -> None:
        """Allocates until `needed` bytes can be written whatever becomes of the disk. Raises OSError."""
        while self._room() < needed:
            if self._allocated + self._settings.segment_bytes > self._settings.bytes_max:
                raise OSError(errno.EDQUOT, "the spool has reached its limit")
            self._spares.append(self._new_segment())

    def write_started(self, payload: bytes) -> None:
        """Raises OSError; then nothing was written."""
        try:
            self._write(Kind.STARTED, 0, payload)
        except OSError as error:
            self.fail(error)
            raise
        self._undurable.append(_Written(self.epoch, Kind.STARTED, 0, payload))

    def write_finished(self, payload: bytes) -> None:
        """Takes the next sequence. When the disk fails, the record waits in memory. Raises ValueError if too large."""
        check_payload(payload)
        sequence = self._next_sequence
        self._next_sequence += 1
        self._undurable.append(_Written(self.epoch, Kind.FINISHED, sequence, payload))
        if self.failure is None:
            try:
                self._write(Kind.FINISHED, sequence, payload)
            except OSError as error:
                self.fail(error)

    def prepare(self) -> Snapshot:
        """What is to be synced. Raises OSError when what failed before still fails."""
        if self.failure is not None:
            self._write_again()
        pending = tuple((segment, segment.end) for segment in self._unsynced if segment.durable_end < segment.end)
        return Snapshot(pending, len(self._undurable))

    @staticmethod
    def sync(snapshot: Snapshot) -> None:
        """Makes it durable; may run in another thread. Raises OSError."""
        for segment, _ in snapshot.segments:
            segment.sync()

    def settle(self, snapshot: Snapshot) -> int:
        """Notes that the sync succeeded. Returns how many finished records became durable."""
        for segment, end in snapshot.segments:
            segment.durable_end = end
        self._unsynced = [segment for segment in self._unsynced if not self.is_sealed(segment)]
        written = [self._undurable.popleft() for _ in range(snapshot.entry_count)]
        return sum(entry.kind is Kind.FINISHED for entry in written)

    def start_epoch(self, epoch: Epoch) -> None:
        """Numbers what is written from now on from 1 again, under another epoch."""
        self.epoch, self._next_sequence, self._active = epoch, 1, None
        self._drop_spares()

    def remove_oldest(self) -> None:
        """Raises OSError."""
        oldest = self.segments[0]
        oldest.remove()
        self.segments.popleft()
        self._unsynced = [segment for segment in self._unsynced if segment is not oldest]
        self._count_bytes()

    def close(self) -> None:
        self._drop_spares()
        for segment in self.segments:
            segment.close()

    def _room(self) -> int:
        whole = self._settings.segment_bytes - HEADER_BYTES
        return len(self._spares) * whole + (self._active.room if self._active else 0)

    def _write(self, kind: Kind, sequence: int, payload: bytes) -> None:
        if self._active is None or self._active.room < OVERHEAD_BYTES + len(payload):
            self._roll()
        assert self._active is not None  # noqa: S101
        self._active.append(kind, sequence, payload)

    def _roll(self) -> None:
        self._active = self._spares.popleft() if self._spares else self._new_segment()
        self.segments.append(self._active)
        self._unsynced.append(self._active)
        self._count_bytes()

    def _new_segment(self) -> Segment:
        segment = Segment.create(self._directory, self._next_number, self.epoch, self._settings.segment_bytes)
        self._next_number += 1
        self._allocated += segment.size
        return segment

    def _write_again(self) -> None:
        """Puts everything in doubt into a new segment."""
        self._distrust()
        self._roll()
        # What was only started has sequence 0 and so comes before its end.
        self._undurable = deque(sorted(map(self._renumbered, self._undurable), key=attrgetter("sequence")))
        for entry in self._undurable:
            self._write(entry.kind, entry.sequence, entry.payload)
        log.warning("the spool writes again, into %s", self._active and self._active.path)
        self.failure = None

    def _distrust(self) -> None:
        for segment in self._unsynced:
            with suppress(OSError):
                if segment.durable_end:
                    segment.truncate(segment.durable_end)
                else:
                    self.segments.remove(segment)
                    segment.remove()
        self._unsynced.clear()
        self._active = None
        self._count_bytes()

    def _renumbered(self, entry: _Written) -> _Written:
        """The same, unless it was numbered in an epoch that has ended meanwhile."""
        if entry.epoch == self.epoch or entry.kind is Kind.STARTED:
            return entry
        self._next_sequence += 1
        return _Written(self.epoch, entry.kind, self._next_sequence - 1, entry.payload)

    def fail(self, error: OSError) -> None:
        """Notes that a write or sync failed: nothing is trusted until `prepare` has written it again."""
        FAILURES.inc()
        log.error("the spool cannot write: %s", error)
        self.failure = error

    def _drop_spares(self) -> None:
        for spare in self._spares:
            with suppress(OSError):
                spare.remove()
        self._spares.clear()

    def _count_bytes(self) -> None:
        self._allocated = sum(segment.size for segment in (*self.segments, *self._spares))
        BYTES.set(self._allocated)
