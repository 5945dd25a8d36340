"""Traces by OpenTelemetry, off unless a collector is named. What they need is imported only then: it takes 11 MiB.

How many calls are sampled, and how spans are batched, is told by OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`,
`OTEL_BSP_…`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.common.settings import Environment, SettingError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT_SETTING = "TOLLGATE_TRACES_ENDPOINT"
_EXPORT_SECONDS_MAX = 2


def read_traces_endpoint(environment: Environment) -> str | None:
    """Where the collector is. Raises SettingError for what is no URL."""
    endpoint = environment.optional_text(ENDPOINT_SETTING)
    if endpoint is not None and not re.fullmatch(r"https?://[^\s/]+", endpoint):
        raise SettingError(
            f"{ENDPOINT_SETTING} must be http://host:port of a collector (OTLP by gRPC), got {endpoint!r}"
        )
    return endpoint


def start_tracing(service: str, endpoint: str | None) -> "TracerProvider | None":
    """Sends spans of every gRPC call that this process takes or makes to a collector. None without one.

    Has to be called before servers and channels are opened. The provider is for spans of other things, and has to be
    shut down at the end, or the last spans are lost.
    """
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415
        GrpcAioInstrumentorClient,
        GrpcAioInstrumentorServer,
        filters,
    )
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"tollgate-{service}"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS_MAX)))
    worth_a_span = filters.negate(filters.health_check())
    GrpcAioInstrumentorServer(worth_a_span).instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    GrpcAioInstrumentorClient(worth_a_span).instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    return provider


@contextmanager
def traced(service: str, endpoint: str | None) -> Iterator[None]:
    """The same, until the block ends."""
    provider = start_tracing(service, endpoint)
    try:
        yield
    finally:
        if provider is not None:
            provider.shutdown()
