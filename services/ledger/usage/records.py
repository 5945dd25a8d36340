"""The values that recording talks about: a finished call, what it cost, and what became of it.

Those that come by the ten thousand each second are named tuples, which are made in a fifth of a dataclass's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple, TypedDict

from services.ledger.pricing import Funding, Outcome, OutputImages, PricedCall

# Of the hash of a record's content.
HASH_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Endpoint(IntEnum):
    """The wire format a call came in. The numbers are those of `tollgate.ledger.v1.Endpoint`."""

    CHAT_COMPLETIONS = 1
    RESPONSES = 2
    EMBEDDINGS = 3
    IMAGE_GENERATIONS = 4
    MESSAGES = 5


class UsageSource(IntEnum):
    """Where a usage comes from. The numbers are those of `tollgate.ledger.v1.UsageSource`."""

    NONE = 0
    REPORTED = 1
    ESTIMATED = 2


class RecordFlag(IntEnum):
    """What is unusual about a record. The numbers are those of `tollgate.ledger.v1.RecordFlag`."""

    USAGE_CLAMPED = 1
    RECOVERED = 2
    TIME_IN_FUTURE = 3
    IMPORTED = 4
    PAYLOAD_TRUNCATED = 5
    PAYLOAD_NOT_COVERED = 6


class RecordStatus(IntEnum):
    """What became of a record. The numbers are those of `tollgate.ledger.v1.RecordStatus`."""

    RECORDED = 1
    DUPLICATE = 2
    CONFLICT = 3
    INVALID = 4


class AttemptKind(TypedDict):
    """What attempts of one kind have in common."""

    provider: str
    upstream_model: str
    funding: int
    status: int
    error_type: str


class Attempt(AttemptKind):
    """One try at one provider, as `tollgate.ledger.v1.Attempt` describes it, and as readers find it in the record."""

    start_offset_ms: int
    latency_ms: int


class RecordedUsage(NamedTuple):
    """`Quantities` as they are recorded: normalised."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    cached_input_audio_tokens: int
    input_image_tokens: int
    reasoning_tokens: int
    output_image_tokens: int
    output_audio_tokens: int
    input_images: int
    web_searches: int
    # None when the provider did not say.
    cached_input_image_tokens: int | None
    output_images: tuple[OutputImages, ...]


class UsageRecord(NamedTuple):
    """One finished client call, as `tollgate.ledger.v1.UsageRecord` describes it. Ids are UUIDs in lower case."""

    request_id: str
    # Days since 1970, in UTC, of the time in the request id.
    request_day: int
    # When the call arrived, in microseconds since 1970.
    start_us: int
    latency_ms: int
    # None when there was no first token.
    time_to_first_token_ms: int | None
    # None when nothing is known of it, which is not the same as zero.
    usage: RecordedUsage | None
    metadata: dict[str, str]
    attempts: tuple[Attempt, ...]
    flags: tuple[RecordFlag, ...]
    # From here on, what calls of one kind have in common.
    organization_id: str
    project_id: str
    api_key_id: str
    endpoint: Endpoint
    requested_model: str
    # Empty, like the provider, when none was tried.
    model: str
    provider: str
    outcome: Outcome
    status: int
    error_type: str
    funding: Funding
    usage_source: UsageSource
    service_tier: str
    streamed: bool
    cache_hit: bool
    workflow: str
    payload_retained: bool

    @property
    def kind(self) -> "Kind":
        return self[9:]

    @property
    def start_time(self) -> datetime:
        return _EPOCH + timedelta(0, 0, self.start_us)


# The fields of a record from `organization_id` on.
Kind = tuple[
    str, str, str, Endpoint, str, str, str, Outcome, int, str, Funding, UsageSource, str, bool, bool, str, bool
]
KIND_FIELDS = UsageRecord._fields[9:]


class PricedRecord(NamedTuple):
    """A record with its cost lines."""

    record: UsageRecord
    priced: PricedCall
    # None when no version was in force.
    price_version_id: int | None
    # The one that applied, 0 for none.
    discount: Decimal


class Payload(NamedTuple):
    """What was asked and answered, as `tollgate.ledger.v1.Payload` describes it. Bodies are compressed."""

    request_body: bytes
    request_content_type: str
    request_truncated: bool
    response_body: bytes
    response_content_type: str
    response_truncated: bool

    @property
    def size(self) -> int:
        return len(self.request_body) + len(self.response_body)


class Reserved(NamedTuple):
    """What a call had reserved of the lease that covers it."""

    organization_id: str
    lease_id: str
    reserved_pico: int


@dataclass(slots=True)
class Received:
    """One record of a delivery, on its way into the books."""

    # As sent, whatever it is.
    request_id: str
    # The record as sent but for its sequence and payload, in one canonical order of bytes.
    content: bytes
    # Of the content. Two records of the same id and the same hash are the same record.
    content_hash: bytes
    # What it says; None when that cannot be taken, and then `problem` says why.
    record: UsageRecord | None
    problem: str = ""
    priced: PricedRecord | None = None
    # None where nothing was reserved. What cannot be taken frees its reservation all the same.
    reserved: Reserved | None = None
    # As the database takes it, where that was prepared ahead; empty where not.
    row: bytes = b""
    payload: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one call delivers: records of one producer, in ascending sequence without gaps."""

    # None for records without a sequence; `epoch` and `first_sequence` are 0 then.
    producer_id: str | None
    epoch: int
    first_sequence: int
    received: Sequence[Received]


class RecordResult(NamedTuple):
    """What became of one record. `reason` is empty unless it could not be taken."""

    request_id: str
    status: RecordStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery, record by record."""

    results: Sequence[RecordResult] = field(default_factory=tuple)
    # 0 without a producer.
    committed_sequence: int = 0
