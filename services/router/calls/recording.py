"""Makes records durable, and tells metrics and log what they say."""

import logging
from typing import Protocol

from services.common.errors import DomainError
from services.router.calls.call_log import CallLog
from services.router.metrics import count_call
from tollgate.ledger.v1.usage_pb2 import UsageRecord

log = logging.getLogger("tollgate.recording")


class Journal(Protocol):
    """What keeps records from here on: the spool."""

    def begin(self, record: UsageRecord, *, credit_funded: bool) -> None:
        """Takes the record a crash would make. Raises SpoolFullError when the call must not be made."""

    async def finish(self, record: UsageRecord) -> None:
        """Returns when the record is durable. Raises SpoolFailedError."""


class Covers(Protocol):
    """What was reserved for calls."""

    def name_cost(self, record: UsageRecord) -> None:
        """Puts into a final record what its call can have cost at most."""

    def end(self, record: UsageRecord) -> None:
        """The journal has the record: what it does not name can be reserved again."""


class Traces(Protocol):
    """Where calls are shown to whoever follows them through several services."""

    def write(self, record: UsageRecord) -> None:
        """Notes a call that ended."""


class Recorder:
    """Begins and ends the records of calls. Lives as long as its worker."""

    def __init__(self, journal: Journal, call_log: CallLog, covers: Covers, traces: Traces | None = None) -> None:
        self._journal = journal
        self._call_log = call_log
        self._covers = covers
        self._traces = traces

    def begin(self, record: UsageRecord, *, credit_funded: bool) -> None:
        """Before a provider is called. Raises SpoolFullError when it must not be."""
        self._journal.begin(record, credit_funded=credit_funded)

    async def finish(self, record: UsageRecord) -> None:
        """Returns when the record is durable. Raises SpoolFailedError; then the client may not be told of success."""
        count_call(record)
        self._call_log.write(record)
        if self._traces is not None:
            self._traces.write(record)
        self._covers.name_cost(record)
        try:
            await self._journal.finish(record)
        finally:
            # The journal has it now, durably or in its place before all that come after it. Whoever goes on holding the
            # record, a cache for one, is not to hold this.
            record.ClearField("payload")
            self._covers.end(record)

    async def finish_failed(self, record: UsageRecord) -> None:
        """Like `finish`, for a call that failed anyway: its own error matters more to the client than the disk's."""
        try:
            await self.finish(record)
        except DomainError as error:
            log.error(
                "a failed call is not recorded yet", extra={"request_id": record.request_id, "why": error.message}
            )
