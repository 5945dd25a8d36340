"""Calls of another gateway, wire ↔ values of the ledger."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.common.errors import InvalidRequestError, TooLargeError
from services.ledger.usage.convert_usage import RECORDS_MAX, received_from_proto
from services.ledger.usage.importing import Imported, ImportResult, import_id, require_source
from services.ledger.usage.records import Received
from tollgate.ledger.v1 import import_service_pb2 as wire
from tollgate.ledger.v1 import usage_pb2

SOURCE_ID_LENGTH_MAX = 256
# What is ours to fill in.
_LEFT_OUT = (
    "request_id",
    "sequence",
    "organization_id",
    "payload_retained",
    "payload",
    "flags",
    "lease_id",
    "reserved",
)
_UNKNOWN_KEY = str(UUID(int=0))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How old a call may be is for the organization's retention to say.
_ANY_AGE = timedelta(days=50_000)


def imported_from_proto(request: wire.ImportRecordsRequest, organization_id: UUID, now: datetime) -> list[Imported]:
    """Raises a DomainError when the call itself is broken; a broken record is among the others with its problem."""
    require_source(request.source)
    if not request.records:
        raise InvalidRequestError("records", "must not be empty")
    if len(request.records) > RECORDS_MAX:
        raise TooLargeError("records", RECORDS_MAX)
    return [_imported(message, organization_id, request.source, now) for message in request.records]


def results_to_proto(results: Iterable[ImportResult]) -> wire.ImportRecordsResponse:
    return wire.ImportRecordsResponse(
        results=[
            wire.ImportResult(
                source_id=one.source_id,
                request_id=one.result.request_id,
                status=int(one.result.status),  # type: ignore[arg-type]
                reason=one.result.reason,
            )
            for one in results
        ]
    )


def _imported(message: wire.ImportedRecord, organization_id: UUID, source: str, now: datetime) -> Imported:
    problem = _problem(message, now)
    if problem:
        return Imported(message.source_id, "", Received("", b"", b"", None, problem))
    record = usage_pb2.UsageRecord()
    record.CopyFrom(message.record)
    record.request_id = import_id(organization_id, source, message.source_id, _start_time(record))
    record.organization_id = str(organization_id)
    record.api_key_id = record.api_key_id or _UNKNOWN_KEY
    received = received_from_proto(record, now, age_max=_ANY_AGE)
    if received.record is None:
        received.problem = f"record.{received.problem}"
    return Imported(message.source_id, record.request_id, received)


def _problem(message: wire.ImportedRecord, now: datetime) -> str:
    """Why no id can be made, or what was filled in that is ours. Empty when all is well."""
    if not 1 <= len(message.source_id) <= SOURCE_ID_LENGTH_MAX:
        return f"source_id must have 1 to {SOURCE_ID_LENGTH_MAX} characters"
    filled = {field.name for field, _ in message.record.ListFields()}
    for name in _LEFT_OUT:
        if name in filled:
            return f"record.{name} must be left out"
    if "start_time" not in filled:
        return "record.start_time is missing"
    try:
        start_time = _start_time(message.record)
    except (ValueError, OverflowError):
        return "record.start_time must be a time from the year 1970 on"
    if start_time < _EPOCH:
        return "record.start_time must be a time from the year 1970 on"
    return "record.start_time is in the future" if start_time > now else ""


def _start_time(record: usage_pb2.UsageRecord) -> datetime:
    return record.start_time.ToDatetime(UTC)
