"""Traces of model calls, as a collector of the OpenTelemetry protocol gets them."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from development.addresses import free_address
from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body
from tollgate.router.v1.inference_service_pb2 import CreateChatCompletionRequest
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceStub

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span, by service and name."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.services: set[str] = set()

    def Export(self, request: Any, context: object) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        for resource in request.resource_spans:
            named = (each.value.string_value for each in resource.resource.attributes if each.key == "service.name")
            self.services.update(named)
            for scope in resource.scope_spans:
                self.spans.update({span.name: span for span in scope.spans})
        return trace_service_pb2.ExportTraceServiceResponse()

    async def span(self, name: str) -> Span:
        async with asyncio.timeout(20):
            while name not in self.spans:  # noqa: ASYNC110 it is told by another thread
                await asyncio.sleep(0.02)
        return self.spans[name]


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    address, kept = free_address(), Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(address)
    server.start()
    yield kept, f"http://{address}"
    server.stop(None)


@pytest.fixture(scope="module")
async def traced(
    start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory, collector: tuple[Collector, str]
) -> AsyncIterator[Router]:
    directory: Path = tmp_path_factory.mktemp("traced")
    async with start_router(directory, TOLLGATE_TRACES_ENDPOINT=collector[1], OTEL_BSP_SCHEDULE_DELAY="50") as router:
        yield router


def attributes_of(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


async def test_a_call_is_a_span_in_its_caller_s_trace_with_its_attempts_below_it(
    traced: Router, collector: tuple[Collector, str], ledger: FakeLedger
) -> None:
    answer = await traced.chat(ledger.grant(), headers={"traceparent": TRACEPARENT}, model="gpt-rescued")
    call = await collector[0].span("chat gpt-rescued")
    failed, answered = await collector[0].span("attempt away"), await collector[0].span("attempt groq")
    record = await ledger.record(answer.request_id)

    assert collector[0].services == {"tollgate-router"}
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
    assert {failed.parent_span_id, answered.parent_span_id} == {call.span_id}
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(failed)["error.type"] == "connect_error"
    assert (
        attributes_of(call).items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "groq",
            "gen_ai.usage.output_tokens": record.usage.output_tokens,
            "http.response.status_code": 200,
            "tollgate.request_id": answer.request_id,
            "tollgate.organization_id": record.organization_id,
        }.items()
    )
    assert call.end_time_unix_nano - call.start_time_unix_nano == record.latency_ms * 1_000_000


async def test_a_call_by_grpc_is_below_the_span_of_its_method(
    traced: Router, collector: tuple[Collector, str], ledger: FakeLedger
) -> None:
    request = CreateChatCompletionRequest(body=HttpBody(data=chat_body("Hello", model="gpt-4o-mini")))
    metadata = (("authorization", f"Bearer {ledger.grant()}"), ("traceparent", TRACEPARENT))
    async with grpc.aio.insecure_channel(traced.grpc_address) as channel:
        stub: Any = InferenceServiceStub(channel)
        await stub.CreateChatCompletion(request, metadata=metadata, timeout=10)
    call = await collector[0].span("chat gpt-4o-mini")
    method = await collector[0].span("/tollgate.router.v1.InferenceService/CreateChatCompletion")

    assert method.parent_span_id.hex() == CALLER
    assert (call.trace_id.hex(), call.parent_span_id) == (TRACE, method.span_id)


async def test_what_a_call_asks_of_the_ledger_is_in_its_trace(
    traced: Router, collector: tuple[Collector, str], ledger: FakeLedger
) -> None:
    await traced.chat(ledger.grant(), headers={"traceparent": TRACEPARENT})
    asked = await collector[0].span("/tollgate.ledger.v1.DirectoryService/ResolveKey")

    assert asked.trace_id.hex() == TRACE


async def test_no_secret_is_in_a_span(traced: Router, collector: tuple[Collector, str], ledger: FakeLedger) -> None:
    key = ledger.grant(own_keys={"openai": "sk-own-secret"})
    await traced.chat(key, "A secret prompt", model="o3")
    await collector[0].span("chat o3")

    text = "".join(str(span) for span in collector[0].spans.values())
    assert not any(secret in text for secret in (key, "sk-own-secret", "A secret prompt", "service-token-of-the-tests"))


async def test_without_a_collector_answers_come_as_ever_and_a_draining_router_ends(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_TRACES_ENDPOINT=f"http://{free_address()}") as router:
        answer = await router.chat(ledger.grant())
        router.process.terminate()
        assert await asyncio.to_thread(router.process.wait, 10) == 0

    assert answer.status == 200
    assert (await ledger.record(answer.request_id)).status == 200
