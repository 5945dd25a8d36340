"""Usage on the wire ↔ values of the ledger. A value that comes out of here can be recorded."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import blake2b
from typing import TypeVar

from services.common.errors import InvalidRequestError, TooLargeError
from services.common.uuid7 import parse_uuid7, time_of
from services.ledger.errors import SequenceGapError
from services.ledger.pricing import Funding, Outcome, OutputImages, Quantities, Usage, normalise
from services.ledger.records import (
    Attempt,
    Delivery,
    Endpoint,
    Receipt,
    Received,
    RecordFlag,
    UsageRecord,
    UsageSource,
)
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_service_pb2 import RecordResult, RecordUsageRequest, RecordUsageResponse

RECORDS_MAX = 1_000
QUANTITY_MAX = 10**12
ATTEMPTS_MAX = 32
METADATA_MAX = 16
METADATA_KEY_LENGTH_MAX = 64
METADATA_VALUE_LENGTH_MAX = 256
MODEL_LENGTH_MAX = 256
WORD_LENGTH_MAX = 64
OUTPUT_IMAGE_KINDS_MAX = 32
HTTP_STATUS_MAX = 999
HASH_BYTES = 16
# Clocks differ; beyond this one of them is wrong.
AHEAD_MAX = timedelta(minutes=5)
AGE_MAX = timedelta(days=35)

_Enum = TypeVar("_Enum", bound=IntEnum)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_PROJECT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# By number, because looking up is a tenth of making.
_ENDPOINTS = {int(endpoint): endpoint for endpoint in Endpoint}
_OUTCOMES = {int(outcome): outcome for outcome in Outcome}
_FUNDINGS = {int(funding): funding for funding in Funding}
_SOURCES = {int(source): source for source in UsageSource}
_FLAGS = {int(flag): flag for flag in RecordFlag}
_QUANTITIES = tuple(
    field.name
    for field in usage_pb2.Usage.DESCRIPTOR.fields
    if field.name not in ("output_images", "cached_input_image_tokens")
)


class _ProblemError(Exception):
    """What is wrong with one record: the field, and a sentence about it."""


def delivery_from_proto(request: RecordUsageRequest, receipt_time: datetime) -> Delivery:
    """Raises a DomainError when the call itself is broken; a broken record is in the delivery with its problem."""
    if not request.records:
        raise InvalidRequestError("records", "must not be empty")
    if len(request.records) > RECORDS_MAX:
        raise TooLargeError("records", RECORDS_MAX)
    first_sequence = _first_sequence(request)
    received = [received_from_proto(message, receipt_time) for message in request.records]
    if not request.producer_id:
        return Delivery(producer_id=None, epoch=0, first_sequence=0, received=received)
    return Delivery(
        producer_id=request.producer_id, epoch=request.epoch, first_sequence=first_sequence, received=received
    )


def _first_sequence(request: RecordUsageRequest) -> int:
    """The sequence of the first record; those of the others follow from it."""
    sequences = [message.sequence for message in request.records]
    if not request.producer_id:
        if any(sequences) or request.epoch:
            raise InvalidRequestError("producer_id", "is needed where records have a sequence, or the call an epoch")
        return 0
    if not _UUID.fullmatch(request.producer_id):
        raise InvalidRequestError("producer_id", "must be a UUID in lower case")
    if request.epoch < 1:
        raise InvalidRequestError("epoch", "must be at least 1 with a producer")
    if sequences[0] < 1:
        raise InvalidRequestError("records[0].sequence", "must be at least 1 with a producer")
    for index, sequence in enumerate(sequences):
        expected = sequences[0] + index
        if sequence > expected:
            raise SequenceGapError(expected - 1, sequence)
        if sequence < expected:
            raise InvalidRequestError(f"records[{index}].sequence", f"must be {expected}, got {sequence}")
    return sequences[0]


def received_from_proto(message: usage_pb2.UsageRecord, receipt_time: datetime) -> Received:
    """Takes the sequence out of the message, whose content does not depend on how it came."""
    message.ClearField("sequence")
    content = message.SerializeToString(deterministic=True)
    received = Received(message.request_id, content, blake2b(content, digest_size=HASH_BYTES).digest(), None)
    try:
        received.record = usage_record_from_proto(message, receipt_time)
    except _ProblemError as error:
        received.problem = str(error)
    return received


def usage_record_from_proto(message: usage_pb2.UsageRecord, receipt_time: datetime) -> UsageRecord:
    flags = {_known(_FLAGS, flag, "flags") for flag in message.flags}
    start_time = _start_time(message, receipt_time, flags)
    outcome = _known(_OUTCOMES, message.outcome, "outcome")
    usage = _usage(message, flags)
    return UsageRecord(
        request_id=message.request_id,
        organization_id=_uuid(message.organization_id, "organization_id"),
        project_id=_project_id(message.project_id, outcome),
        api_key_id=_uuid(message.api_key_id, "api_key_id"),
        endpoint=_known(_ENDPOINTS, message.endpoint, "endpoint"),
        requested_model=_text(message.requested_model, "requested_model", MODEL_LENGTH_MAX),
        model=_text(message.model, "model", MODEL_LENGTH_MAX),
        provider=_text(message.provider, "provider", WORD_LENGTH_MAX),
        start_time=start_time,
        latency_ms=_whole(message.latency_ms, "latency_ms"),
        time_to_first_token_ms=_whole(message.time_to_first_token_ms, "time_to_first_token_ms")
        if message.HasField("time_to_first_token_ms")
        else None,
        outcome=outcome,
        status=_whole(message.status, "status", HTTP_STATUS_MAX),
        error_type=_text(message.error_type, "error_type", WORD_LENGTH_MAX),
        funding=_known(_FUNDINGS, message.funding, "funding"),
        usage=usage,
        usage_source=_usage_source(message, usage),
        service_tier=_text(message.service_tier, "service_tier", WORD_LENGTH_MAX),
        streamed=message.streamed,
        cache_hit=message.cache_hit,
        workflow=_text(message.workflow, "workflow", WORD_LENGTH_MAX),
        metadata=_metadata(message) if message.metadata else {},
        attempts=_attempts(message),
        flags=tuple(sorted(flags)),
        payload_retained=message.payload_retained,
    )


def receipt_to_proto(receipt: Receipt) -> RecordUsageResponse:
    return RecordUsageResponse(
        results=[
            RecordResult(request_id=result.request_id, status=int(result.status), reason=result.reason)  # type: ignore[arg-type]
            for result in receipt.results
        ],
        committed_sequence=receipt.committed_sequence,
    )


def _start_time(message: usage_pb2.UsageRecord, receipt_time: datetime, flags: set[RecordFlag]) -> datetime:
    """When the call arrived; the receipt time, and a flag, where that has not come yet."""
    try:
        id_time = time_of(parse_uuid7(message.request_id))
    except ValueError:
        raise _ProblemError("request_id must be a UUID of version 7 in lower case") from None
    if not message.HasField("start_time"):
        raise _ProblemError("start_time is missing")
    seconds, nanos = message.start_time.seconds, message.start_time.nanos
    try:
        start_time = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1_000)
    except OverflowError:
        raise _ProblemError("start_time is not a time") from None
    for name, time in (("request_id", id_time), ("start_time", start_time)):
        if time > receipt_time:
            if time > receipt_time + AHEAD_MAX:
                raise _ProblemError(f"{name} is more than 5 minutes in the future")
            flags.add(RecordFlag.TIME_IN_FUTURE)
        elif time < receipt_time - AGE_MAX:
            raise _ProblemError(f"{name} is more than 35 days in the past")
    return receipt_time if RecordFlag.TIME_IN_FUTURE in flags else start_time


def _usage(message: usage_pb2.UsageRecord, flags: set[RecordFlag]) -> Quantities | None:
    if not message.HasField("usage"):
        return None
    sent = message.usage
    values = {name: getattr(sent, name) for name in _QUANTITIES}
    if sent.HasField("cached_input_image_tokens"):
        values["cached_input_image_tokens"] = sent.cached_input_image_tokens
    if min(values.values()) < 0 or max(values.values()) > QUANTITY_MAX:
        wrong = next(name for name, value in values.items() if not 0 <= value <= QUANTITY_MAX)
        raise _ProblemError(f"usage.{wrong} must be from 0 to {QUANTITY_MAX}, got {values[wrong]}")
    usage, clamped = normalise(Usage(output_images=_output_images(sent.output_images), **values))
    if clamped:
        flags.add(RecordFlag.USAGE_CLAMPED)
    return usage


def _output_images(sent: Iterable[usage_pb2.OutputImages]) -> tuple[OutputImages, ...]:
    kinds = tuple(
        OutputImages(
            _text(kind.size, "usage.output_images.size", WORD_LENGTH_MAX),
            _text(kind.quality, "usage.output_images.quality", WORD_LENGTH_MAX),
            kind.count,
        )
        for kind in sent
    )
    if len(kinds) > OUTPUT_IMAGE_KINDS_MAX:
        raise _ProblemError(f"usage.output_images may have at most {OUTPUT_IMAGE_KINDS_MAX} entries")
    if any(not 1 <= kind.count <= QUANTITY_MAX for kind in kinds):
        raise _ProblemError(f"usage.output_images.count must be from 1 to {QUANTITY_MAX}")
    return kinds


def _usage_source(message: usage_pb2.UsageRecord, usage: Quantities | None) -> UsageSource:
    source = _known(_SOURCES, message.usage_source, "usage_source")
    if (usage is None) != (source is UsageSource.NONE):
        raise _ProblemError("usage_source must be given with usage, and only then")
    return source


def _attempts(message: usage_pb2.UsageRecord) -> tuple[Attempt, ...]:
    if len(message.attempts) > ATTEMPTS_MAX:
        raise _ProblemError(f"attempts may have at most {ATTEMPTS_MAX} entries")
    return tuple(
        Attempt(
            _text(attempt.provider, "attempts.provider", WORD_LENGTH_MAX),
            _text(attempt.upstream_model, "attempts.upstream_model", MODEL_LENGTH_MAX),
            _known(_FUNDINGS, attempt.funding, "attempts.funding"),
            _whole(attempt.status, "attempts.status", HTTP_STATUS_MAX),
            _text(attempt.error_type, "attempts.error_type", WORD_LENGTH_MAX),
            _whole(attempt.start_offset_ms, "attempts.start_offset_ms"),
            _whole(attempt.latency_ms, "attempts.latency_ms"),
        )
        for attempt in message.attempts
    )


def _metadata(message: usage_pb2.UsageRecord) -> dict[str, str]:
    if len(message.metadata) > METADATA_MAX:
        raise _ProblemError(f"metadata may have at most {METADATA_MAX} entries")
    return {
        _text(key, "metadata", METADATA_KEY_LENGTH_MAX): _text(value, f"metadata.{key}", METADATA_VALUE_LENGTH_MAX)
        for key, value in message.metadata.items()
    }


def _project_id(text: str, outcome: Outcome) -> str:
    if not _PROJECT_ID.fullmatch(text) and (text or outcome is not Outcome.REFUSED):
        raise _ProblemError("project_id must be 1 to 64 letters, digits or ._:-")
    return text


def _uuid(text: str, name: str) -> str:
    if not _UUID.fullmatch(text):
        raise _ProblemError(f"{name} must be a UUID in lower case")
    return text


def _text(text: str, name: str, length_max: int) -> str:
    if len(text) > length_max:
        raise _ProblemError(f"{name} may have at most {length_max} characters")
    if "\0" in text:
        raise _ProblemError(f"{name} contains a NUL character")
    return text


def _whole(value: int, name: str, most: int = 2**31 - 1) -> int:
    if not 0 <= value <= most:
        raise _ProblemError(f"{name} must be from 0 to {most}, got {value}")
    return value


def _known(values: dict[int, _Enum], number: int, name: str) -> _Enum:
    value = values.get(number)
    if value is None:
        raise _ProblemError(f"{name} has no value {number}")
    return value
