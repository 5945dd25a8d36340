"""The record of one call while it grows, from its arrival to the moment it is final."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.common.errors import InvalidRequestError
from services.common.uuid7 import milliseconds_of, new_uuid7_text
from services.router.calls.payloads import PayloadKeeper, feed_whole
from services.router.formats.endpoint import EndpointNumber
from services.router.formats.usage import UsageReading
from services.router.routing.routing import Failure, Funding, PlannedAttempt
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse
from tollgate.ledger.v1.usage_pb2 import Usage, UsageRecord

WORKFLOW_LENGTH_MAX = 64
METADATA_COUNT_MAX = 16
METADATA_KEY_LENGTH_MAX = 64
METADATA_VALUE_LENGTH_MAX = 256
_METADATA_PREFIX = "x-tollgate-metadata-"
_MILLISECONDS_MAX = 2**31 - 1


@dataclass(slots=True)
class Arrival:
    """When a call came in, and the id it is known by from then on."""

    request_id: str = field(default_factory=new_uuid7_text)
    # Monotonic: latencies must not jump when the clock is set.
    seconds: float = field(default_factory=time.perf_counter)
    # The client's, without a port. Empty when it is not known.
    address: str = ""

    def elapsed_ms(self) -> int:
        return min(round((time.perf_counter() - self.seconds) * 1000), _MILLISECONDS_MAX)


class CallRecord:
    """Builds the usage record of one call."""

    def __init__(self, arrival: Arrival, endpoint: EndpointNumber, grant: ResolveKeyResponse) -> None:
        self.arrival = arrival
        # Until it is finished, the record is the one that a crash would make.
        self.wire = UsageRecord(
            request_id=arrival.request_id,
            endpoint=usage_pb2.Endpoint.ValueType(endpoint),
            outcome=usage_pb2.OUTCOME_UNKNOWN,
            flags=[usage_pb2.RECORD_FLAG_RECOVERED],
        )
        start_time = self.wire.start_time
        start_time.seconds, milliseconds = divmod(milliseconds_of(arrival.request_id), 1_000)
        start_time.nanos = milliseconds * 1_000_000
        self.take_grant(grant)
        # True from `end` on.
        self.is_final = False
        self._flags: list[usage_pb2.RecordFlag.ValueType] = []
        # None for organizations that retain nothing.
        self._payload = PayloadKeeper() if grant.payload_retained else None

    def take_grant(self, grant: ResolveKeyResponse) -> None:
        """For whom the call is made."""
        self.wire.organization_id = grant.organization_id
        self.wire.project_id = grant.project_id
        self.wire.api_key_id = grant.api_key_id
        self.wire.payload_retained = grant.payload_retained

    def describe(self, headers: Mapping[str, str]) -> None:
        """Takes in what the client attached. Raises InvalidRequestError above the limits."""
        workflow = headers.get("x-tollgate-workflow", "")
        if len(workflow) > WORKFLOW_LENGTH_MAX:
            raise InvalidRequestError("x-tollgate-workflow", f"may have at most {WORKFLOW_LENGTH_MAX} characters")
        self.wire.workflow = workflow
        names = [name for name in headers if name.startswith(_METADATA_PREFIX)]
        if len(names) > METADATA_COUNT_MAX:
            raise InvalidRequestError("x-tollgate-metadata", f"may have at most {METADATA_COUNT_MAX} entries")
        for name in names:
            self._attach(name, headers[name])

    def _attach(self, name: str, value: str) -> None:
        key = name.removeprefix(_METADATA_PREFIX)
        if not 0 < len(key) <= METADATA_KEY_LENGTH_MAX or len(value) > METADATA_VALUE_LENGTH_MAX:
            raise InvalidRequestError(
                name,
                f"may have {METADATA_KEY_LENGTH_MAX} characters as its key and {METADATA_VALUE_LENGTH_MAX} as value",
            )
        self.wire.metadata[key] = value

    def take_reservation(self, lease_id: str, reserved: str) -> None:
        """The call is covered by so much of a lease, in USD."""
        self.wire.lease_id, self.wire.reserved = lease_id, reserved

    def forget_reservation(self) -> None:
        self.wire.lease_id = self.wire.reserved = ""

    def point_at(self, planned: PlannedAttempt) -> None:
        """The provider, the model and the funding that the call stands for now."""
        self.wire.provider = planned.candidate.provider
        self.wire.model = planned.candidate.model
        self.wire.funding = _FUNDING[planned.funding]

    def begin_attempt(self, planned: PlannedAttempt) -> None:
        """One more try; it counts as running until `end_attempt`."""
        self.point_at(planned)
        self.wire.attempts.add(
            provider=planned.candidate.provider,
            upstream_model=planned.candidate.upstream_model,
            funding=self.wire.funding,
            start_offset_ms=self.arrival.elapsed_ms(),
        )

    def end_attempt(self, status: int, failure: Failure | None = None) -> None:
        """The running try is over: with its last byte, or with its failure."""
        attempt = self.wire.attempts[-1]
        attempt.status = status
        attempt.error_type = failure.error_type if failure is not None else ""
        attempt.latency_ms = self.arrival.elapsed_ms() - attempt.start_offset_ms

    def take_cached(self, first: UsageRecord) -> None:
        """The answer is the one of an earlier call, from our cache."""
        self.wire.cache_hit = True
        for name in ("provider", "model", "funding", "usage_source", "service_tier"):
            setattr(self.wire, name, getattr(first, name))
        self.wire.usage.CopyFrom(first.usage)

    @property
    def token_count(self) -> int:
        """Input and output, as far as they are known."""
        return self.wire.usage.input_tokens + self.wire.usage.output_tokens

    def take_reported(self, reading: UsageReading, service_tier: str) -> None:
        self.wire.usage.CopyFrom(reading.usage)
        self.wire.usage_source = usage_pb2.USAGE_SOURCE_REPORTED
        self.wire.service_tier = service_tier
        if reading.clamped:
            self._flags.append(usage_pb2.RECORD_FLAG_USAGE_CLAMPED)

    def take_estimated(self, usage: Usage) -> None:
        self.wire.usage.CopyFrom(usage)
        self.wire.usage_source = usage_pb2.USAGE_SOURCE_ESTIMATED

    def retain_nothing(self) -> None:
        """Forgets what was taken down, and takes down no more: credit does not cover its storage."""
        self._payload = None
        self.wire.payload_retained = False
        self._flags.append(usage_pb2.RECORD_FLAG_PAYLOAD_NOT_COVERED)

    async def keep_request(self, body: bytes, content_type: str) -> None:
        """Takes down what was asked, where the organization retains it."""
        if self._payload is not None:
            await feed_whole(self._payload.request, body, content_type)

    async def keep_response(self, body: bytes, content_type: str) -> None:
        """Takes down what was answered, or the head of an answer that comes in pieces."""
        if self._payload is not None:
            await feed_whole(self._payload.response, body, content_type)

    def keep_piece(self, piece: bytes) -> None:
        """Takes down the next piece of an answer that is streamed."""
        if self._payload is not None and not self.is_final:
            self._payload.response.feed(piece)

    def first_byte(self) -> None:
        """The answer begins to leave."""
        self.wire.time_to_first_token_ms = self.arrival.elapsed_ms()

    def end(self, outcome: "usage_pb2.Outcome.ValueType", status: int, error_type: str = "") -> UsageRecord:
        """The final record."""
        self.wire.outcome = outcome
        self.wire.status = status
        self.wire.error_type = error_type
        self.wire.latency_ms = self.arrival.elapsed_ms()
        self.is_final = True
        if self._payload is not None and outcome != usage_pb2.OUTCOME_REFUSED:
            self.wire.payload.CopyFrom(self._payload.finish())
            if self._payload.is_truncated:
                self._flags.append(usage_pb2.RECORD_FLAG_PAYLOAD_TRUNCATED)
        self.wire.flags[:] = self._flags
        return self.wire


_FUNDING: "Mapping[Funding, usage_pb2.Funding.ValueType]" = {
    Funding.CREDITS: usage_pb2.FUNDING_CREDITS,
    Funding.OWN_KEY: usage_pb2.FUNDING_OWN_KEY,
}
