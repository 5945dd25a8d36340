"""Where requests go, what they look like when they arrive, and what stays inside."""

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tests.integration.gateway.front_door import FrontDoor
from tests.integration.gateway.upstreams import OPERATOR_KEY, READER_KEY, SERVICE_TOKEN, ModelRoutes
from tollgate.ledger.v1 import (
    directory_service_pb2,
    directory_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from tollgate.reporting.v1 import activity_service_pb2, activity_service_pb2_grpc
from tollgate.router.v1 import inference_service_pb2, inference_service_pb2_grpc

MODEL_ROUTES = ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/images/generations", "/v1/messages"]


@pytest.mark.parametrize("path", ["/activity", "/v1/activity", "/v1/activity/", "//v1/activity"])
async def test_activity_is_found_under_every_name_it_has(front_door: FrontDoor, path: str) -> None:
    answer = await front_door.get(path)

    assert answer.status == 200
    assert answer.json["activity"][0]["date"] == "2026-05-01"


@pytest.mark.parametrize(
    "spelled", ["projectId=web&apiKeyId=k&groupBy=apiKey", "project_id=web&api_key_id=k&group_by=apiKey"]
)
async def test_parameters_bind_in_either_spelling(front_door: FrontDoor, spelled: str) -> None:
    await front_door.get(f"/activity?from=2026-05-01&to=2026-05-02&{spelled}&timezone=Etc/GMT%2B1&unknown=1")

    assert front_door.activity.seen[-1] == activity_service_pb2.GetActivityRequest(
        from_date="2026-05-01",
        to_date="2026-05-02",
        project_id="web",
        api_key_id="k",
        group_by="apiKey",
        timezone="Etc/GMT+1",
    )


async def test_a_key_may_come_as_x_api_key(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity", key=None, x_api_key=READER_KEY)

    assert answer.status == 200


async def test_initial_metadata_are_headers(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity")

    assert answer.headers["x-tollgate-as-of"] == "2026-05-01T00:00:00.000Z"


@pytest.mark.parametrize("path", ["/activity", "/v1/balance", "/nothing", "/v1/models"])
async def test_every_answer_has_a_request_id_and_is_neither_sniffed_nor_stored(
    front_door: FrontDoor, path: str
) -> None:
    answer = await front_door.get(path, x_request_id="chosen-by-the-client")

    assert answer.headers["x-request-id"] not in ("", "chosen-by-the-client")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-store"
    assert "grpc-status" not in answer.headers


async def test_the_service_is_told_the_request_id_that_the_client_gets(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity")

    assert front_door.activity.headers[-1]["x-request-id"] == answer.headers["x-request-id"]


async def test_an_answer_of_several_mebibytes_arrives_whole(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity?projectId=huge")

    assert answer.status == 200
    assert len(answer.json["activity"]) == 20_000


async def test_large_answers_are_compressed_for_those_who_can_read_them(front_door: FrontDoor) -> None:
    request = b"GET /activity?projectId=huge HTTP/1.1\r\nhost: x\r\nx-api-key: tg_reader\r\nconnection: close\r\n"

    head, _ = await front_door.send_raw(request + b"accept-encoding: gzip\r\n\r\n")

    assert b"content-encoding: gzip" in head


@pytest.mark.parametrize("path", MODEL_ROUTES)
async def test_model_calls_reach_the_router_byte_for_byte(front_door: FrontDoor, path: str) -> None:
    body = b'{ "model":"gpt-4o",\n "n" : 1.0 }'

    answer = await front_door.ask("POST", f"{path}?a=b%20c", body=body, x_tollgate_workflow="tests")

    assert answer.status == 200
    assert answer.json["path"] == f"{path}?a=b%20c"
    assert answer.json["body"] == body.decode()
    assert answer.json["headers"]["authorization"] == f"Bearer {READER_KEY}"
    assert answer.json["headers"]["x-tollgate-workflow"] == "tests"


@pytest.mark.parametrize("path", ["/v1/models", "/health"])
async def test_models_and_health_are_the_routers(front_door: FrontDoor, path: str) -> None:
    answer = await front_door.get(path, key=None)

    assert answer.json["path"] == path


async def test_the_routers_errors_pass_untouched(front_door: FrontDoor) -> None:
    answer = await front_door.ask("POST", "/v1/messages?fail", body=b"{}")

    assert answer.status == 529
    assert answer.text.encode() == ModelRoutes.FAILURE


async def test_nobody_outside_can_pose_as_a_service(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity", key=None, x_api_key="tg_wrong", x_tollgate_service_token=SERVICE_TOKEN)
    model_call = await front_door.ask("POST", "/v1/responses", body=b"{}", x_tollgate_service_token=SERVICE_TOKEN)

    assert answer.status == 401
    assert "x-tollgate-service-token" not in model_call.json["headers"]


async def test_native_grpc_reaches_the_public_services(front_door: FrontDoor) -> None:
    body = HttpBody(content_type="application/json", data=b"{}")
    async with front_door.channel() as channel:
        activity = activity_service_pb2_grpc.ActivityServiceStub(channel)
        inference = inference_service_pb2_grpc.InferenceServiceStub(channel)
        key = (("authorization", f"Bearer {OPERATOR_KEY}"),)

        days = await activity.GetActivity(
            activity_service_pb2.GetActivityRequest(days="1"),
            metadata=(*key, ("x-envoy-original-path", "/forged")),
        )
        refused = inference.CreateChatCompletion(
            inference_service_pb2.CreateChatCompletionRequest(body=body), metadata=(("x-api-key", READER_KEY),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as read_only:
            await refused
        pieces = [
            piece.body.data
            async for piece in inference.StreamChatCompletion(
                inference_service_pb2.StreamChatCompletionRequest(body=body), metadata=key
            )
        ]

    assert days.activity[0].request_count == 3
    assert "x-envoy-original-path" not in front_door.activity.headers[-1]
    assert read_only.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert pieces == [b"{}"] * 3


async def test_internal_services_cannot_be_reached_from_outside(front_door: FrontDoor) -> None:
    metadata = (("authorization", f"Bearer {OPERATOR_KEY}"), ("x-tollgate-service-token", SERVICE_TOKEN))
    async with front_door.channel() as channel:
        calls = [
            usage_service_pb2_grpc.UsageServiceStub(channel).RecordUsage(
                usage_service_pb2.RecordUsageRequest(), metadata=metadata
            ),
            directory_service_pb2_grpc.DirectoryServiceStub(channel).ResolveKey(
                directory_service_pb2.ResolveKeyRequest(), metadata=metadata
            ),
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), metadata=metadata),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call

            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

        # Sends nothing: a request that meets a refusal on its way fails the client in its own words.
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await reflection.read()

        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path",
    [
        "/tollgate.ledger.v1.UsageService/RecordUsage",
        "/tollgate.ledger.v1.DirectoryService/ResolveKey",
        "/tollgate.reporting.v1.ActivityService/GetActivity",
        "/v1/usage_records",
    ],
)
async def test_a_plain_post_to_a_grpc_path_is_404(front_door: FrontDoor, path: str) -> None:
    answer = await front_door.ask("POST", path, key=OPERATOR_KEY, body=b"{}", content_type="application/json")

    assert answer.status == 404


async def test_an_origin_that_is_not_allowed_gets_no_permission(front_door: FrontDoor) -> None:
    answer = await front_door.ask(
        "OPTIONS", "/activity", key=None, origin="https://elsewhere.example", access_control_request_method="GET"
    )

    assert answer.status == 401
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/activity", "/v1/requests/7", "/v1/chat/completions"])
async def test_an_origin_that_is_allowed_may_ask_before_it_has_a_key(open_front_door: FrontDoor, path: str) -> None:
    origin = "https://dashboard.example"
    preflight = await open_front_door.ask("OPTIONS", path, key=None, origin=origin, access_control_request_method="GET")

    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "authorization" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize("key", [READER_KEY, None])
async def test_an_allowed_origin_may_read_answers_and_errors(open_front_door: FrontDoor, key: str | None) -> None:
    answer = await open_front_door.get("/activity", key=key, origin="https://dashboard.example")

    assert answer.status == (200 if key else 401)
    assert answer.headers["access-control-allow-origin"] == "https://dashboard.example"
    assert "x-tollgate-as-of" in answer.headers["access-control-expose-headers"]
