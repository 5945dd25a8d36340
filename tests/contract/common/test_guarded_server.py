"""What holds for every gRPC method of ours, whatever it does."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from development.addresses import Addresses
from services.common.authentication import Caller, Scope, hash_key
from services.common.errors import InvalidRequestError
from services.common.grpc_calls import SERVICE_TOKEN_HEADER, TRANSCODED_HEADER, current_caller
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.settings import SettingError
from tollgate.ledger.v1 import directory_service_pb2, directory_service_pb2_grpc
from tollgate.reporting.v1 import activity_service_pb2, activity_service_pb2_grpc
from tollgate.router.v1 import inference_service_pb2, inference_service_pb2_grpc

CALLERS = {
    hash_key("tg_project"): Caller(scope=Scope.PROJECT, organization_id="org-1", project_id="web"),
    hash_key("tg_reader"): Caller(scope=Scope.ORGANIZATION, organization_id="org-1", read_only=True),
    hash_key("tg_operator"): Caller(scope=Scope.OPERATOR),
}


class Keys:
    async def find(self, key_hash: bytes) -> Caller | None:
        return CALLERS.get(key_hash)


class Activity(activity_service_pb2_grpc.ActivityServiceServicer):
    async def GetActivity(
        self, request: activity_service_pb2.GetActivityRequest, context: object
    ) -> activity_service_pb2.GetActivityResponse:
        if request.days == "abc":
            raise InvalidRequestError("days", "must be a whole number")
        if request.days == "bug":
            raise ZeroDivisionError("secret detail")
        period = activity_service_pb2.ActivityPeriod(date=current_caller().organization_id or "all")
        return activity_service_pb2.GetActivityResponse(activity=[period])


class Directory(directory_service_pb2_grpc.DirectoryServiceServicer):
    async def ResolveKey(
        self, request: directory_service_pb2.ResolveKeyRequest, context: object
    ) -> directory_service_pb2.ResolveKeyResponse:
        return directory_service_pb2.ResolveKeyResponse(project_id="web")


class Inference(inference_service_pb2_grpc.InferenceServiceServicer):
    async def CreateChatCompletion(
        self, request: inference_service_pb2.CreateChatCompletionRequest, context: object
    ) -> inference_service_pb2.CreateChatCompletionResponse:
        return inference_service_pb2.CreateChatCompletionResponse()

    async def StreamChatCompletion(
        self, request: inference_service_pb2.StreamChatCompletionRequest, context: object
    ) -> AsyncIterator[inference_service_pb2.StreamChatCompletionResponse]:
        yield inference_service_pb2.StreamChatCompletionResponse()
        raise InvalidRequestError("body", "breaks off")


SERVICES = [
    Service(
        activity_service_pb2.DESCRIPTOR.services_by_name["ActivityService"],
        activity_service_pb2_grpc.add_ActivityServiceServicer_to_server,
        Activity(),  # type: ignore[abstract]  # it answers what the tests ask
    ),
    Service(
        directory_service_pb2.DESCRIPTOR.services_by_name["DirectoryService"],
        directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server,
        Directory(),  # type: ignore[abstract]
    ),
    Service(
        inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"],
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server,
        Inference(),  # type: ignore[abstract]  # it answers what the tests ask
    ),
]


def a_server(address: str) -> GrpcServer:
    settings = ServerSettings(listen_address=address, service_token="inside", reflection=True, drain_seconds=0)
    return GrpcServer(settings, Keys(), SERVICES)


@pytest.fixture(scope="module")
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    address = Addresses.free().ledger
    server = a_server(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened
    await server.stop()


async def get_activity(channel: grpc.aio.Channel, days: str = "", **headers: str) -> str:
    stub = activity_service_pb2_grpc.ActivityServiceStub(channel)
    metadata = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    response = await stub.GetActivity(activity_service_pb2.GetActivityRequest(days=days), metadata=metadata, timeout=5)
    return str(response.activity[0].date)


def reason_of(error: Any) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no key"),
        pytest.param({"authorization": "Bearer tg_unknown"}, id="an unknown key"),
        pytest.param({"authorization": "tg_operator"}, id="a key without its scheme"),
    ],
)
async def test_a_call_without_a_valid_key_is_unauthenticated(
    channel: grpc.aio.Channel, headers: dict[str, str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get_activity(channel, "abc", **headers)

    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(raised.value) == "INVALID_API_KEY"


async def test_a_valid_key_gets_an_answer_that_knows_its_bearer(channel: grpc.aio.Channel) -> None:
    assert await get_activity(channel, authorization="Bearer tg_project") == "org-1"
    assert await get_activity(channel, x_api_key="tg_operator") == "all"


async def test_an_internal_method_refuses_every_key_and_takes_the_service_token(channel: grpc.aio.Channel) -> None:
    stub = directory_service_pb2_grpc.DirectoryServiceStub(channel)
    request = directory_service_pb2.ResolveKeyRequest()

    answer = await stub.ResolveKey(request, metadata=((SERVICE_TOKEN_HEADER, "inside"),), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ResolveKey(request, metadata=(("x-api-key", "tg_operator"),), timeout=5)

    assert answer.project_id == "web"
    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_wrong_service_token_is_never_taken_for_a_wrong_key(channel: grpc.aio.Channel) -> None:
    stub = directory_service_pb2_grpc.DirectoryServiceStub(channel)
    metadata = ((SERVICE_TOKEN_HEADER, "guessed"), ("x-api-key", "tg_operator"))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ResolveKey(directory_service_pb2.ResolveKeyRequest(), metadata=metadata, timeout=5)

    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_read_only_key_may_not_use_a_method_that_spends(channel: grpc.aio.Channel) -> None:
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateChatCompletion(
            inference_service_pb2.CreateChatCompletionRequest(), metadata=(("x-api-key", "tg_reader"),), timeout=5
        )

    assert reason_of(raised.value) == "READ_ONLY_KEY"


async def test_an_error_of_the_domain_reaches_the_client_with_its_reason(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get_activity(channel, "abc", x_api_key="tg_operator")

    assert (raised.value.code(), raised.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "days must be a whole number",
    )


async def test_a_bug_reaches_the_client_without_its_story(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get_activity(channel, "bug", x_api_key="tg_operator")

    assert raised.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value.details())


@pytest.mark.parametrize("request_bytes", [b"\x0a\x02\xe9\xff", b"\xff\xff"])
async def test_a_request_that_is_no_message_is_the_caller_s_fault(
    channel: grpc.aio.Channel, request_bytes: bytes
) -> None:
    method = channel.unary_unary("/tollgate.reporting.v1.ActivityService/GetActivity", None, None)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(request_bytes, metadata=(("x-api-key", "tg_operator"),), timeout=5)

    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("is_transcoded", [False, True])
async def test_a_stream_that_breaks_off_never_ends_like_a_complete_one(
    channel: grpc.aio.Channel, is_transcoded: bool
) -> None:
    method = channel.unary_stream("/tollgate.router.v1.InferenceService/StreamChatCompletion", None, None)
    metadata = [("x-api-key", "tg_project")] + [(TRANSCODED_HEADER, "/x")] * is_transcoded

    pieces: list[bytes] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for piece in method(b"", metadata=metadata, timeout=5):
            pieces.append(piece)

    assert pieces == [b""] + [b"\xff"] * is_transcoded
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_health_needs_no_key(channel: grpc.aio.Channel) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_method_whose_contract_does_not_say_who_may_call_cannot_be_served() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="open.proto", package="open")
    file.message_type.add(name="Empty")
    file.service.add(name="OpenService").method.add(name="Get", input_type=".open.Empty", output_type=".open.Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def register(_servicer: object, server: Any) -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
        server.add_registered_method_handlers("open.OpenService", {"Get": handler})

    service = Service(pool.FindServiceByName("open.OpenService"), register, object())
    settings = ServerSettings(listen_address="", service_token="inside", reflection=False, drain_seconds=0)

    with pytest.raises(ValueError, match="open.OpenService.Get has no"):
        GrpcServer(settings, Keys(), [service])


async def test_a_port_in_use_is_one_clear_line(channel: grpc.aio.Channel) -> None:
    address = Addresses.free().ledger
    first = a_server(address)
    await first.start()

    with pytest.raises(SettingError, match=f"cannot listen on {address}"):
        await a_server(address).start()
    await first.stop()
