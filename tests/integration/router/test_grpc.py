"""The same calls over gRPC, through the same core."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body
from tollgate.ledger.v1 import usage_pb2
from tollgate.router.v1 import inference_service_pb2
from tollgate.router.v1.inference_service_pb2 import CreateChatCompletionRequest, StreamChatCompletionRequest
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceStub

SECONDS = 20
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def channel(router: Router) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(
        router.grpc_address, options=[("grpc.max_send_message_length", 20 * 1024 * 1024)]
    ) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return InferenceServiceStub(channel)


def bearer(key: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"), *((name.replace("_", "-"), value) for name, value in more.items()))


def plain(prompt: str = "Hello there", **members: object) -> CreateChatCompletionRequest:
    return CreateChatCompletionRequest(body=HttpBody(data=chat_body(prompt, **members)))


def streamed(prompt: str = "Hello there", **members: object) -> StreamChatCompletionRequest:
    return StreamChatCompletionRequest(body=HttpBody(data=chat_body(prompt, stream=True, **members)))


async def reason_of(call: Any) -> tuple[grpc.StatusCode, ErrorInfo]:
    """How a call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status: Any = rpc_status.from_call(raised.value)  # type: ignore[arg-type] # its stubs know no asyncio
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return raised.value.code(), info


async def test_a_plain_call_has_the_bytes_and_the_record_of_http(router: Router, ledger: FakeLedger, stub: Any) -> None:
    key = ledger.grant()
    call = stub.CreateChatCompletion(plain(), metadata=bearer(key, x_tollgate_workflow="nightly"), timeout=SECONDS)
    answer = await call
    headers = dict(await call.initial_metadata())
    record = await ledger.record(headers["x-tollgate-request-id"])

    assert answer.body.data == (await router.chat(key)).body
    assert answer.body.content_type == "application/json"
    assert (headers["x-tollgate-provider"], headers["x-tollgate-attempts"]) == ("openai", "1")
    assert (record.workflow, record.usage.output_tokens) == ("nightly", 8)


async def test_a_stream_has_the_bytes_of_http(router: Router, ledger: FakeLedger, stub: Any) -> None:
    key = ledger.grant()
    call = stub.StreamChatCompletion(streamed(), metadata=bearer(key), timeout=SECONDS)
    pieces = [piece.body async for piece in call]

    assert b"".join(piece.data for piece in pieces) == (await router.chat(key, stream=True)).body
    assert pieces[0].content_type.startswith("text/event-stream")
    headers = dict(await call.initial_metadata())
    assert (await ledger.record(headers["x-tollgate-request-id"])).outcome == usage_pb2.OUTCOME_SUCCESS


async def test_a_caller_that_hangs_up_is_recorded_as_gone(ledger: FakeLedger, stub: Any) -> None:
    prompt = "Hello simulate:tokens=20 simulate:chunk_ms=50"
    call = stub.StreamChatCompletion(streamed(prompt), metadata=bearer(ledger.grant()), timeout=SECONDS)
    headers = dict(await call.initial_metadata())
    await call.read()
    call.cancel()
    record = await ledger.record(headers["x-tollgate-request-id"])

    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE
    assert record.usage.output_tokens == 20


async def test_a_caller_that_hangs_up_on_a_plain_call_is_recorded_all_the_same(ledger: FakeLedger, stub: Any) -> None:
    key = ledger.grant()
    call = stub.CreateChatCompletion(plain("Hello simulate:delay_ms=500"), metadata=bearer(key), timeout=SECONDS)
    await asyncio.sleep(0.2)
    call.cancel()

    (record,) = await ledger.records_of(key)
    assert record.usage.output_tokens == 8


async def test_a_caller_that_hangs_up_before_the_first_piece_is_recorded_all_the_same(
    ledger: FakeLedger, stub: Any
) -> None:
    key = ledger.grant()
    call = stub.StreamChatCompletion(streamed("Hello simulate:delay_ms=500"), metadata=bearer(key), timeout=SECONDS)
    await asyncio.sleep(0.2)
    call.cancel()

    (record,) = await ledger.records_of(key)
    assert (record.outcome, record.usage.output_tokens) == (usage_pb2.OUTCOME_CLIENT_GONE, 8)


async def test_refusals_name_their_reason(ledger: FakeLedger, stub: Any) -> None:
    async def refused(key: str, request: CreateChatCompletionRequest) -> tuple[grpc.StatusCode, str]:
        code, info = await reason_of(stub.CreateChatCompletion(request, metadata=bearer(key), timeout=SECONDS))
        return code, info.reason

    code = grpc.StatusCode
    assert await refused("tg_unknown", plain()) == (code.UNAUTHENTICATED, "INVALID_API_KEY")
    assert await refused(ledger.grant(read_only=True), plain()) == (code.PERMISSION_DENIED, "READ_ONLY_KEY")
    assert await refused(ledger.grant(), plain(model="x")) == (code.NOT_FOUND, "MODEL_NOT_FOUND")
    assert await refused(ledger.grant(), plain(stream=True)) == (code.INVALID_ARGUMENT, "INVALID_REQUEST")
    no_credit = ledger.grant(credit_available=False)
    assert await refused(no_credit, plain()) == (code.RESOURCE_EXHAUSTED, "INSUFFICIENT_CREDITS")
    failing = plain("Hello simulate:status=503")
    assert await refused(ledger.grant(), failing) == (code.UNAVAILABLE, "PROVIDER_FAILED")


async def test_a_refused_call_has_its_id_and_its_record(ledger: FakeLedger, stub: Any) -> None:
    call = stub.CreateChatCompletion(plain(model="x"), metadata=bearer(ledger.grant()), timeout=SECONDS)
    headers = dict(await call.initial_metadata())

    assert (await ledger.record(headers["x-tollgate-request-id"])).status == 404


async def test_what_the_provider_says_is_wrong_comes_with_its_body(ledger: FakeLedger, stub: Any) -> None:
    request = plain("Hello simulate:status=422")
    code, info = await reason_of(stub.CreateChatCompletion(request, metadata=bearer(ledger.grant()), timeout=SECONDS))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert orjson.loads(info.metadata["provider_body"])["error"]["message"] == "failing, as asked"


async def test_the_health_is_asked_as_everywhere(channel: grpc.aio.Channel) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "CreateResponse": ("/v1/responses", {"model": "gpt-5-mini", "input": "Hi"}),
    "CreateEmbedding": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi"}),
    "GenerateImage": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "a cat"}),
    "CreateMessage": ("/v1/messages", {"model": "claude-sonnet", "max_tokens": 9, "messages": HI}),
}
STREAMS = {
    "StreamResponse": OTHERS["CreateResponse"],
    "StreamImage": OTHERS["GenerateImage"],
    "StreamMessage": OTHERS["CreateMessage"],
}


@pytest.mark.parametrize("method", OTHERS)
async def test_the_other_formats_have_the_bytes_and_the_record_of_http(
    router: Router, ledger: FakeLedger, stub: Any, method: str
) -> None:
    path, members = OTHERS[method]
    body = orjson.dumps(members)
    request = getattr(inference_service_pb2, f"{method}Request")(body=HttpBody(data=body))
    call = getattr(stub, method)(request, metadata=bearer(ledger.grant()), timeout=SECONDS)
    answer = await call
    headers = dict(await call.initial_metadata())

    assert answer.body.data == (await router.send("POST", path, body, ledger.grant())).body
    record = await ledger.record(headers["x-tollgate-request-id"])
    assert (record.outcome, record.usage_source) == (usage_pb2.OUTCOME_SUCCESS, usage_pb2.USAGE_SOURCE_REPORTED)


@pytest.mark.parametrize("method", STREAMS)
async def test_their_streams_have_the_bytes_of_http(router: Router, ledger: FakeLedger, stub: Any, method: str) -> None:
    path, members = STREAMS[method]
    body = orjson.dumps({**members, "stream": True})
    request = getattr(inference_service_pb2, f"{method}Request")(body=HttpBody(data=body))
    call = getattr(stub, method)(request, metadata=bearer(ledger.grant()), timeout=SECONDS)

    pieces = [piece.body.data async for piece in call]
    assert b"".join(pieces) == (await router.send("POST", path, body, ledger.grant())).body


async def test_a_stream_where_none_is_possible_is_refused(ledger: FakeLedger, stub: Any) -> None:
    body = orjson.dumps({"model": "gpt-image-1", "prompt": "a cat", "stream": True})
    request = inference_service_pb2.GenerateImageRequest(body=HttpBody(data=body))
    code, info = await reason_of(stub.GenerateImage(request, metadata=bearer(ledger.grant()), timeout=SECONDS))

    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "stream")


@pytest.fixture(scope="module")
async def small_router(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    limits = {"TOLLGATE_ROUTER_CALLS_MAX": "2", "TOLLGATE_ROUTER_BODIES_MIB": "16"}
    async with start_router(tmp_path_factory.mktemp("small"), **limits) as router:
        yield router


async def test_calls_count_together_whichever_way_they_come(small_router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    slow = "Hello simulate:delay_ms=1500"
    async with grpc.aio.insecure_channel(small_router.grpc_address) as channel:
        stub: Any = InferenceServiceStub(channel)
        by_http = asyncio.create_task(small_router.chat(key, slow))
        by_grpc = stub.StreamChatCompletion(streamed(slow), metadata=bearer(key), timeout=SECONDS)
        await asyncio.sleep(0.5)
        third_by_http = await small_router.chat(key)
        third = stub.CreateChatCompletion(plain(), metadata=bearer(key), timeout=SECONDS)
        stream = stub.StreamChatCompletion(streamed(), metadata=bearer(key), timeout=SECONDS)
        refusals = [await reason_of(third), await reason_of(stream.read())]
        pieces = [piece async for piece in by_grpc]
        after = await stub.CreateChatCompletion(plain(), metadata=bearer(key), timeout=SECONDS)

    assert (third_by_http.status, (await by_http).status) == (503, 200)
    for code, info in refusals:
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    assert dict(await third.initial_metadata())["x-tollgate-request-id"]
    assert pieces
    assert after.body.data


async def test_bodies_take_their_room_together_whichever_way_they_come(
    small_router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    options = [("grpc.max_send_message_length", 20 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(small_router.grpc_address, options=options) as channel:
        stub: Any = InferenceServiceStub(channel)
        large = plain(f"simulate:delay_ms=1500 {'x' * 14 * 1024 * 1024}")
        first = stub.CreateChatCompletion(large, metadata=bearer(key), timeout=SECONDS)
        await asyncio.sleep(1)
        refused = await small_router.chat(key, "x" * 4 * 1024 * 1024)
        await first
        again = await small_router.chat(key, "x" * 4 * 1024 * 1024)

    assert (refused.status, again.status) == (503, 200)
