"""Makes records durable, and tells metrics and log what they say."""

import logging
from typing import Protocol

from services.common.errors import DomainError
from services.router.metrics import CALLS, LATENCY, OVERHEAD, TOKENS
from tollgate.ledger.v1.usage_pb2 import Outcome, UsageRecord

log = logging.getLogger("tollgate.call")


class Journal(Protocol):
    """What keeps records from here on: the spool."""

    def begin(self, record: UsageRecord, *, credit_funded: bool) -> None:
        """Takes the record a crash would make. Raises SpoolFullError when the call must not be made."""

    async def finish(self, record: UsageRecord) -> None:
        """Returns when the record is durable. Raises SpoolFailedError."""


class Recorder:
    """Ends calls."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, record: UsageRecord, *, credit_funded: bool) -> None:
        self._journal.begin(record, credit_funded=credit_funded)

    async def finish(self, record: UsageRecord) -> None:
        """Returns when the record is durable. Raises SpoolFailedError; then the client may not be told of success."""
        try:
            await self._journal.finish(record)
        finally:
            _count(record)
            _log(record)

    async def finish_refusal(self, record: UsageRecord) -> None:
        """Like `finish`, for a call that failed anyway: its own error matters more to the client than the disk's."""
        try:
            await self.finish(record)
        except DomainError as error:
            log.error("refusal not recorded", extra={"request_id": record.request_id, "why": error.message})


def _count(record: UsageRecord) -> None:
    CALLS.labels(record.provider, Outcome.Name(record.outcome)).inc()
    if not record.attempts:
        return
    LATENCY.labels(record.provider).observe(record.latency_ms / 1000)
    if not record.streamed:
        OVERHEAD.observe((record.latency_ms - sum(attempt.latency_ms for attempt in record.attempts)) / 1000)
    if record.HasField("usage"):
        TOKENS.labels(record.provider, "input").inc(record.usage.input_tokens)
        TOKENS.labels(record.provider, "output").inc(record.usage.output_tokens)


def _log(record: UsageRecord) -> None:
    log.info(
        "call",
        extra={
            "request_id": record.request_id,
            "organization_id": record.organization_id,
            "project_id": record.project_id,
            "requested_model": record.requested_model,
            "provider": record.provider,
            "outcome": Outcome.Name(record.outcome),
            "status": record.status,
            "error": record.error_type,
            "streamed": record.streamed,
            "attempts": len(record.attempts),
            "input_tokens": record.usage.input_tokens,
            "output_tokens": record.usage.output_tokens,
            "duration_ms": record.latency_ms,
        },
    )
