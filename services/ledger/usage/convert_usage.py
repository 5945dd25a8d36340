"""Usage on the wire ↔ values of the ledger. A value that comes out of here can be recorded."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, TypeVar

from services.common.errors import InvalidRequestError, TooLargeError
from services.common.money import pico_from_usd
from services.ledger.errors import SequenceGapError
from services.ledger.pricing import Funding, Outcome, OutputImages, normalise
from services.ledger.usage.records import (
    HASH_BYTES,
    KIND_FIELDS,
    Attempt,
    AttemptKind,
    Delivery,
    Endpoint,
    Kind,
    Payload,
    Receipt,
    Received,
    RecordedUsage,
    RecordFlag,
    Reserved,
    UsageRecord,
    UsageSource,
)
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest, RecordUsageResponse

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
# Compressed.
BODY_BYTES_MAX = 256 * 1024
CONTENT_TYPE_LENGTH_MAX = 128
# Texts that were found to be in order, remembered.
CHECKED_MAX = 16_384
# Enough for a router that takes its zone's time for UTC: a wrong clock must not lose what clients were answered.
AHEAD_MAX = timedelta(days=1)
AGE_MAX = timedelta(days=35)

_Enum = TypeVar("_Enum", bound=IntEnum)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MS_PER_DAY = 86_400_000
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_PROJECT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# By number, because looking up is a tenth of making.
_ENDPOINTS = {int(endpoint): endpoint for endpoint in Endpoint}
_OUTCOMES = {int(outcome): outcome for outcome in Outcome}
_FUNDINGS = {int(funding): funding for funding in Funding}
_SOURCES = {int(source): source for source in UsageSource}
# Whoever sends records for charging cannot say that they are not to be charged.
_FLAGS: dict[int, RecordFlag] = {int(flag): flag for flag in RecordFlag if flag != RecordFlag.IMPORTED}
_KIND = attrgetter(*KIND_FIELDS)
_ATTEMPT_KIND = attrgetter(*AttemptKind.__annotations__)
_QUANTITY_NAMES = RecordedUsage._fields[:-2]
_QUANTITIES = attrgetter(*_QUANTITY_NAMES)


class _ProblemError(Exception):
    """What is wrong with one record: the field, and a sentence about it."""


class _Window:
    """Which times a record may have that is received now."""

    def __init__(self, receipt_time: datetime, age_max: timedelta = AGE_MAX) -> None:
        # In microseconds since 1970.
        self.now = (receipt_time - _EPOCH) // _MICROSECOND
        self.first = self.now - age_max // _MICROSECOND
        self.last = self.now + AHEAD_MAX // _MICROSECOND


def delivery_from_proto(request: RecordUsageRequest, receipt_time: datetime) -> Delivery:
    """Raises a DomainError when the call itself is broken; a broken record is in the delivery with its problem."""
    if not request.records:
        raise InvalidRequestError("records", "must not be empty")
    if len(request.records) > RECORDS_MAX:
        raise TooLargeError("records", RECORDS_MAX)
    first_sequence = _first_sequence(request)
    window = _Window(receipt_time)
    received = [_received(message, window) for message in request.records]
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


def received_from_proto(
    message: usage_pb2.UsageRecord, receipt_time: datetime, age_max: timedelta = AGE_MAX
) -> Received:
    """Takes the sequence out of the message, whose content does not depend on how it came."""
    return _received(message, _Window(receipt_time, age_max))


def _received(message: usage_pb2.UsageRecord, window: _Window) -> Received:
    message.ClearField("sequence")
    sent_payload = _taken_payload(message)
    content = message.SerializeToString(deterministic=True)
    content_hash = blake2b(content, digest_size=HASH_BYTES).digest()
    try:
        received = Received(message.request_id, content, content_hash, _usage_record(message, window))
        if sent_payload is not None and message.payload_retained:
            received.payload = _payload(sent_payload)
    except _ProblemError as error:
        received = Received(message.request_id, content, content_hash, None, str(error))
    if message.lease_id:
        received.reserved = _reserved(message)
    return received


def _reserved(message: usage_pb2.UsageRecord) -> Reserved | None:
    """None where it says nothing that could be: then the lease holds on until its log is known to be recorded."""
    if not _UUID.fullmatch(message.lease_id) or not _UUID.fullmatch(message.organization_id):
        return None
    try:
        return Reserved(message.organization_id, message.lease_id, pico_from_usd(message.reserved))
    except ValueError:
        return None


def _taken_payload(message: usage_pb2.UsageRecord) -> usage_pb2.Payload | None:
    """The payload, out of the message: it must not be set aside with a record that cannot be taken, nor compared."""
    if not message.HasField("payload"):
        return None
    payload = usage_pb2.Payload()
    payload.CopyFrom(message.payload)
    message.ClearField("payload")
    return payload


def _usage_record(message: usage_pb2.UsageRecord, window: _Window) -> UsageRecord:
    sent_flags, sent_metadata, sent_attempts = message.flags, message.metadata, message.attempts
    flags = {_known(_FLAGS, flag, "flags") for flag in sent_flags} if sent_flags else set()
    request_id = message.request_id
    request_ms = _request_ms(request_id)
    start_us = _start_us(message, request_ms, window, flags)
    usage = _usage(message.usage, flags) if message.HasField("usage") else None
    # All at once: names, and even positions, cost more than everything else about a value that is made this often.
    return tuple.__new__(
        UsageRecord,
        (
            request_id,
            request_ms // _MS_PER_DAY,
            start_us,
            _whole(message.latency_ms, "latency_ms"),
            _whole(message.time_to_first_token_ms, "time_to_first_token_ms")
            if message.HasField("time_to_first_token_ms")
            else None,
            usage,
            _metadata(sent_metadata) if sent_metadata else {},
            _attempts(sent_attempts) if sent_attempts else (),
            tuple(sorted(flags)) if flags else (),
            *_kind(_KIND(message), usage is not None),
        ),
    )


# Of a kind there are many calls, and what was found to be in order once is remembered.
@lru_cache(maxsize=CHECKED_MAX)
def _kind(sent: tuple[Any, ...], has_usage: bool) -> Kind:
    # fmt: off
    (
        organization_id, project_id, api_key_id, endpoint, requested_model, model, provider, outcome, status,
        error_type, funding, usage_source, service_tier, streamed, cache_hit, workflow, payload_retained,
    ) = sent
    # fmt: on
    return (
        _uuid(organization_id, "organization_id"),
        _project_id(project_id, outcome == Outcome.REFUSED),
        _uuid(api_key_id, "api_key_id"),
        _known(_ENDPOINTS, endpoint, "endpoint"),
        _word(requested_model, "requested_model", MODEL_LENGTH_MAX),
        _word(model, "model", MODEL_LENGTH_MAX),
        _word(provider, "provider", WORD_LENGTH_MAX),
        _known(_OUTCOMES, outcome, "outcome"),
        _whole(status, "status", HTTP_STATUS_MAX),
        _word(error_type, "error_type", WORD_LENGTH_MAX),
        _known(_FUNDINGS, funding, "funding"),
        _usage_source(usage_source, has_usage),
        _word(service_tier, "service_tier", WORD_LENGTH_MAX),
        streamed,
        cache_hit,
        _word(workflow, "workflow", WORD_LENGTH_MAX),
        payload_retained,
    )


def receipt_to_proto(receipt: Receipt) -> RecordUsageResponse:
    response = RecordUsageResponse(committed_sequence=receipt.committed_sequence)
    # Messages that are put together first and then given to the response are copied into it.
    add = response.results.add
    for request_id, status, reason in receipt.results:
        result = add()
        result.request_id = request_id
        result.status = status  # type: ignore[assignment]
        if reason:
            result.reason = reason
    return response


def _request_ms(request_id: str) -> int:
    """The time in the id, in milliseconds since 1970."""
    if not _UUID7.fullmatch(request_id):
        raise _ProblemError("request_id must be a UUID of version 7 in lower case")
    return int(request_id[:8] + request_id[9:13], 16)


def _start_us(message: usage_pb2.UsageRecord, request_ms: int, window: _Window, flags: set[RecordFlag]) -> int:
    """When the call arrived; the receipt time, and a flag, where that has not come yet."""
    sent = message.start_time
    start = sent.seconds * 1_000_000 + sent.nanos // 1_000
    if not window.first <= start <= window.now or not window.first <= request_ms * 1_000 <= window.now:
        if not message.HasField("start_time"):
            raise _ProblemError("start_time is missing")
        _require_inside("request_id", request_ms * 1_000, window)
        _require_inside("start_time", start, window)
        flags.add(RecordFlag.TIME_IN_FUTURE)
        return window.now
    return start


def _require_inside(name: str, microseconds: int, window: _Window) -> None:
    if microseconds > window.last:
        raise _ProblemError(f"{name} is more than a day in the future")
    if microseconds < window.first:
        raise _ProblemError(f"{name} is more than 35 days in the past")


def _usage(sent: usage_pb2.Usage, flags: set[RecordFlag]) -> RecordedUsage:
    cached_images = sent.cached_input_image_tokens if sent.HasField("cached_input_image_tokens") else None
    quantities = _QUANTITIES(sent)
    if min(quantities) < 0 or max(quantities) > QUANTITY_MAX or not 0 <= (cached_images or 0) <= QUANTITY_MAX:
        named = dict(zip(_QUANTITY_NAMES, quantities, strict=True)) | {"cached_input_image_tokens": cached_images or 0}
        wrong = next(name for name, value in named.items() if not 0 <= value <= QUANTITY_MAX)
        raise _ProblemError(f"usage.{wrong} must be from 0 to {QUANTITY_MAX}, got {named[wrong]}")
    sent_images = sent.output_images
    images = _output_images(sent_images) if sent_images else ()
    usage = tuple.__new__(RecordedUsage, (*quantities, cached_images, images))
    clamped, was_clamped = normalise(usage)
    if not was_clamped:
        return usage
    flags.add(RecordFlag.USAGE_CLAMPED)
    return RecordedUsage._make((*_QUANTITIES(clamped), clamped.cached_input_image_tokens, images))


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


def _payload(sent: usage_pb2.Payload) -> Payload:
    return Payload(
        _body(sent.request_body, "payload.request_body"),
        _word(sent.request_content_type, "payload.request_content_type", CONTENT_TYPE_LENGTH_MAX),
        sent.request_truncated,
        _body(sent.response_body, "payload.response_body"),
        _word(sent.response_content_type, "payload.response_content_type", CONTENT_TYPE_LENGTH_MAX),
        sent.response_truncated,
    )


def _body(compressed: bytes, name: str) -> bytes:
    if len(compressed) > BODY_BYTES_MAX:
        raise _ProblemError(f"{name} may have at most {BODY_BYTES_MAX} bytes, compressed")
    return compressed


def _usage_source(number: int, has_usage: bool) -> UsageSource:
    source = _known(_SOURCES, number, "usage_source")
    if has_usage != (source is not UsageSource.NONE):
        raise _ProblemError("usage_source must be given with usage, and only then")
    return source


def _attempts(sent: Sequence[usage_pb2.Attempt]) -> tuple[Attempt, ...]:
    if len(sent) > ATTEMPTS_MAX:
        raise _ProblemError(f"attempts may have at most {ATTEMPTS_MAX} entries")
    return tuple(
        [
            {
                **_attempt_kind(_ATTEMPT_KIND(attempt)),
                "start_offset_ms": _whole(attempt.start_offset_ms, "attempts.start_offset_ms"),
                "latency_ms": _whole(attempt.latency_ms, "attempts.latency_ms"),
            }
            # Of a copy: asking the message for more than it has takes longer.
            for attempt in sent[:]
        ]
    )


@lru_cache(maxsize=CHECKED_MAX)
def _attempt_kind(sent: tuple[Any, ...]) -> AttemptKind:
    provider, upstream_model, funding, status, error_type = sent
    return {
        "provider": _word(provider, "attempts.provider", WORD_LENGTH_MAX),
        "upstream_model": _word(upstream_model, "attempts.upstream_model", MODEL_LENGTH_MAX),
        "funding": _known(_FUNDINGS, funding, "attempts.funding"),
        "status": _whole(status, "attempts.status", HTTP_STATUS_MAX),
        "error_type": _word(error_type, "attempts.error_type", WORD_LENGTH_MAX),
    }


def _metadata(sent: Mapping[str, str]) -> dict[str, str]:
    if len(sent) > METADATA_MAX:
        raise _ProblemError(f"metadata may have at most {METADATA_MAX} entries")
    # `dict(sent)` says the same and takes three times as long.
    metadata = {key: sent[key] for key in sent}
    for key, value in metadata.items():
        _word(key, "metadata", METADATA_KEY_LENGTH_MAX)
        if len(value) > METADATA_VALUE_LENGTH_MAX or "\0" in value:
            _text(value, f"metadata.{key}", METADATA_VALUE_LENGTH_MAX)
    return metadata


def _project_id(text: str, may_be_empty: bool) -> str:
    if not _PROJECT_ID.fullmatch(text) and (text or not may_be_empty):
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


# For what comes again and again: the names of models, projects and the like.
_word = lru_cache(maxsize=CHECKED_MAX)(_text)


def _whole(value: int, name: str, most: int = 2**31 - 1) -> int:
    if not 0 <= value <= most:
        raise _ProblemError(f"{name} must be from 0 to {most}, got {value}")
    return value


def _known(values: dict[int, _Enum], number: int, name: str) -> _Enum:
    value = values.get(number)
    if value is None:
        raise _ProblemError(f"{name} has no value {number}")
    return value
