"""The spool: why a usage record is never lost."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.common.settings import SettingError
from services.router.spool.entry import OVERHEAD_BYTES
from services.router.spool.errors import SpoolFailedError, SpoolFullError
from services.router.spool.group_commit import GroupCommit
from services.router.spool.log import Log
from services.router.spool.metrics import DEPTH, OLDEST_SECONDS, OPEN_CALLS, PAYLOADS_DROPPED, REFUSALS
from services.router.spool.outbox import Outbox
from services.router.spool.recovery import Recovered, recover
from services.router.spool.register import Epoch
from services.router.spool.segment import Segment
from services.router.spool.settings import SpoolSettings
from services.router.spool.slot import Slot
from tollgate.ledger.v1.usage_pb2 import RECORD_FLAG_PAYLOAD_TRUNCATED, UsageRecord

# What a record may grow by between its begin and its end: usage, and attempts.
GROWTH_BYTES = 4096
# Above this share of the limit, calls that would spend credit are refused.
CREDIT_SHARE_MAX = 0.9
# Above this share, records are written without their payloads: those would fill the spool many times faster.
PAYLOAD_SHARE_MAX = 0.5


@dataclass(slots=True)
class _OpenCall:
    """A call that has begun. Its payload stays in memory, so that its segment need not stay on disk."""

    payload: bytes
    segment_number: int

    @property
    def reserved_bytes(self) -> int:
        """Room for its end, and for carrying over its begin once."""
        return 2 * (OVERHEAD_BYTES + len(self.payload)) + GROWTH_BYTES


class Spool:
    """One worker's usage records, from the moment a call is let in until the ledger has them.

    One per process, used from one event loop. Nothing is ever dropped to make room: what could not be recorded is
    refused before it happens, and the room for a call's end is allocated before the call begins.
    """

    def __init__(self, slot: Slot, settings: SpoolSettings, recovered: Recovered) -> None:
        """Use `open`. Raises OSError."""
        self._slot = slot
        self._settings = settings
        self._open: dict[str, _OpenCall] = {}
        self._reserved_bytes = 0
        self._is_closed = False
        self._log = Log(slot.directory, slot.next_epoch(), settings, recovered.segments)
        self.epoch = self._log.epoch
        unfinished_count = len(recovered.unfinished)
        self.outbox = Outbox(self._log, slot, recovered.unsent_count, unfinished_count, self._evacuate)
        self._commit = GroupCommit(self._log, settings, self.outbox.note_durable)
        for call in recovered.unfinished:
            self._log.write_finished(call.payload)
            self._log.copied_from.add(call.segment_number)

    @classmethod
    def open(cls, directory: Path, settings: SpoolSettings) -> "Spool":
        """Takes the first slot under the directory that no other process holds, and recovers what it finds there.

        A call that was begun and not finished becomes a finished record, as its `begin` described it, in the new epoch.
        Succeeds on a full disk: what can be shipped is shipped, which makes room. Raises SettingError with one line
        when the directory cannot be used.
        """
        spool = cls._recover(Slot.take(directory), settings)
        spool._show_metrics()
        return spool

    @classmethod
    def open_abandoned(cls, directory: Path, settings: SpoolSettings) -> "Spool | None":
        """A spool that a worker left and no worker has taken since, for its records to be shipped, or None.

        Workers become fewer, and what the last ones left must not wait until they are more again. Raises SettingError.
        """
        try:
            slot = Slot.take_abandoned(directory)
        except OSError as error:
            raise SettingError(f"the spool directory {directory} cannot be used: {error.strerror}") from error
        return cls._recover(slot, settings) if slot is not None else None

    @classmethod
    def _recover(cls, slot: Slot, settings: SpoolSettings) -> "Spool":
        try:
            spool = cls(slot, settings, recover(slot.directory, slot.cursor.read()))
        except OSError as error:
            slot.release()
            raise SettingError(f"the spool in {slot.directory} cannot be used: {error.strerror}") from error
        spool._try_to_settle()
        return spool

    @property
    def directory(self) -> Path:
        """The slot this process has taken."""
        return self._slot.directory

    def note_settled(self, before: Epoch) -> None:
        """The ledger knows that no record of a life before this one can come any more. Raises OSError."""
        self._slot.settled.write(before, durable=False)

    def begin(self, record: UsageRecord, *, credit_funded: bool) -> None:
        """Writes down that a call is about to be made. Raises SpoolFullError when it must not be.

        `record` is what a crash of this process would leave of the call: outcome `UNKNOWN`, flag `RECOVERED`, no usage,
        sequence 0. It is written, not synced: the kernel keeps what a killed process wrote. Only when the machine goes
        down can it be lost, with the call it belongs to, whose client saw no end and is billed nothing either way. To
        wait for a sync before each provider is called would buy nothing but the trace, at a sync's time per call.
        """
        call = _OpenCall(record.SerializeToString(), 0)
        try:
            self._admit(call, credit_funded=credit_funded)
            self._log.write_started(call.payload)
        except OSError as error:
            self._refuse(error.strerror or "the disk failed")
        call.segment_number = self._log.active_number
        self._reserved_bytes += call.reserved_bytes
        self._open[record.request_id] = call

    async def finish(self, record: UsageRecord) -> None:
        """Writes down how a call ended, and returns when that is durable.

        The spool numbers the record; its own sequence must be 0. Raises SpoolFailedError when the disk failed twice;
        the record then stays in memory and becomes durable when the disk can do it. A caller that is cancelled while
        it waits loses nothing.
        """
        call = self._open.pop(record.request_id, None)
        if call is not None:
            self._reserved_bytes -= call.reserved_bytes
        self._log.write_finished(self._payload_of(record))
        await self._commit.durable()

    def close(self) -> None:
        """Syncs what is left and gives the slot back. Calls that are still open will be recovered by the next life.

        Closing again does nothing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._commit.close()
        self._log.close()
        self._slot.release()

    def _payload_of(self, record: UsageRecord) -> bytes:
        """The bytes to write: without what is retained of the call where there is no room to spare for that."""
        whole = record.SerializeToString()
        if not record.HasField("payload") or self._has_room_to_spare(OVERHEAD_BYTES + len(whole)):
            return whole
        bare = UsageRecord()
        bare.CopyFrom(record)
        bare.ClearField("payload")
        bare.flags.append(RECORD_FLAG_PAYLOAD_TRUNCATED)
        PAYLOADS_DROPPED.inc()
        return bare.SerializeToString()

    def _has_room_to_spare(self, size: int) -> bool:
        """Whether an entry of this size takes nothing that records without payloads may need."""
        settings = self._settings
        if self._log.failure is not None or size > settings.segment_bytes // 2:
            return False
        if self._log.bytes_used + self._reserved_bytes + size > PAYLOAD_SHARE_MAX * settings.bytes_max:
            return False
        try:
            # Twice, because it may not fit into what is left of a segment, which is then lost.
            self._log.make_room(self._reserved_bytes + 2 * size)
        except OSError:
            return False
        return True

    def _admit(self, call: _OpenCall, *, credit_funded: bool) -> None:
        """Raises SpoolFullError or OSError unless both ends of the call can be recorded."""
        if self._log.failure is not None:
            self._commit.wake()
            self._refuse(self._log.failure.strerror or "the disk failed")
        needed = self._reserved_bytes + call.reserved_bytes
        if credit_funded and self._log.bytes_used + needed > CREDIT_SHARE_MAX * self._settings.bytes_max:
            self._refuse("the spool is nearly full")
        self._log.make_room(needed)

    def _refuse(self, why: str) -> None:
        REFUSALS.inc()
        raise SpoolFullError(why)

    async def _evacuate(self, segment: Segment) -> None:
        """Copies what is still open in a segment to the end of the log. Raises SpoolFailedError."""
        moving = [call for call in self._open.values() if call.segment_number == segment.number]
        if not moving and segment.number not in self._log.copied_from:
            return
        for call in moving:
            try:
                self._log.write_started(call.payload)
            except OSError as error:
                raise SpoolFailedError(str(error)) from error
            call.segment_number = self._log.active_number
        await self._commit.durable()
        self._log.copied_from.discard(segment.number)

    def _try_to_settle(self) -> None:
        """Makes the recovered records durable before anything else happens; later, if the disk is full."""
        try:
            self._commit.commit_now()
        except OSError:
            with suppress(RuntimeError):  # Without a running loop, the first call wakes it.
                self._commit.wake()
        else:
            self._log.copied_from.clear()

    def _show_metrics(self) -> None:
        DEPTH.set_function(lambda: self.outbox.depth)
        OLDEST_SECONDS.set_function(lambda: self.outbox.oldest_seconds)
        OPEN_CALLS.set_function(lambda: len(self._open))
