"""Traces of model calls, made of their records: one span for the call, one below it for each attempt."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.context import Context, attach
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import Attempt, UsageRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# As OpenTelemetry's conventions for generative AI name them.
_OPERATIONS = {
    usage_pb2.ENDPOINT_CHAT_COMPLETIONS: "chat",
    usage_pb2.ENDPOINT_RESPONSES: "chat",
    usage_pb2.ENDPOINT_MESSAGES: "chat",
    usage_pb2.ENDPOINT_EMBEDDINGS: "embeddings",
    usage_pb2.ENDPOINT_IMAGE_GENERATIONS: "image_generation",
}
_NS_PER_MS = 1_000_000


class CallTraces:
    """Lives as long as its worker."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tollgate.router")

    def enter(self, headers: Mapping[str, str]) -> None:
        """What this task does from here on belongs to the trace that the caller's `traceparent` names, if it does."""
        attach(extract(headers))

    def write(self, record: UsageRecord) -> None:
        """Notes a call that ended, in the task that answered it."""
        start_ns = record.start_time.ToNanoseconds()
        operation = _OPERATIONS.get(record.endpoint, "unknown")
        span = self._tracer.start_span(
            f"{operation} {record.requested_model}".rstrip(),
            kind=SpanKind.SERVER,
            attributes=_attributes(record, operation),
            start_time=start_ns,
        )
        if span.is_recording():
            for attempt in record.attempts:
                self._write_attempt(attempt, set_span_in_context(span), start_ns)
        _end(span, record.error_type, start_ns + record.latency_ms * _NS_PER_MS)

    def _write_attempt(self, attempt: Attempt, call: Context, call_start_ns: int) -> None:
        start_ns = call_start_ns + attempt.start_offset_ms * _NS_PER_MS
        span = self._tracer.start_span(
            f"attempt {attempt.provider}",
            call,
            SpanKind.CLIENT,
            attributes={
                "gen_ai.provider.name": attempt.provider,
                "gen_ai.request.model": attempt.upstream_model,
                "http.response.status_code": attempt.status,
            },
            start_time=start_ns,
        )
        _end(span, attempt.error_type, start_ns + attempt.latency_ms * _NS_PER_MS)

    def close(self) -> None:
        """Sends what waits. Takes no longer than two exports may take."""
        self._provider.shutdown()


def _attributes(record: UsageRecord, operation: str) -> Mapping[str, AttributeValue]:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": record.provider,
        "gen_ai.request.model": record.requested_model,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": record.usage.input_tokens,
        "gen_ai.usage.output_tokens": record.usage.output_tokens,
        "http.response.status_code": record.status,
        "tollgate.request_id": record.request_id,
        "tollgate.organization_id": record.organization_id,
        "tollgate.project_id": record.project_id,
        "tollgate.outcome": usage_pb2.Outcome.Name(record.outcome).removeprefix("OUTCOME_").lower(),
        "tollgate.cache_hit": record.cache_hit,
    }


def _end(span: Span, error_type: str, end_ns: int) -> None:
    if error_type:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_ns)
