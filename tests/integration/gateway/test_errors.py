"""Every error that leaves the front door has the documented status, type, code and body."""

import grpc
import pytest

from tests.integration.gateway.front_door import Answer, FrontDoor
from tests.integration.gateway.upstreams import OPERATOR_KEY, services_behind
from tollgate.reporting.v1 import activity_service_pb2, activity_service_pb2_grpc


def assert_is_error(answer: Answer, status: int, kind: str, code: str) -> str:
    """Returns the message."""
    assert answer.status == status, answer
    error = answer.json["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert answer.json == {"error": error, "message": error["message"]}
    assert error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return str(error["message"])


@pytest.mark.parametrize("path", ["/activity", "/v1/requests/7", "/v1/balance", "/nothing", "/activity?days=abc"])
async def test_without_a_key_everything_is_401(front_door: FrontDoor, path: str) -> None:
    answer = await front_door.get(path, key=None)

    assert_is_error(answer, 401, "authentication_error", "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_wrong_key_is_401_in_the_same_words_as_none(front_door: FrontDoor) -> None:
    none = await front_door.get("/activity", key=None)
    wrong = await front_door.get("/activity?projectId=bad-parameter", key="tg_wrong")

    assert_is_error(wrong, 401, "authentication_error", "invalid_api_key")
    assert wrong.json == none.json
    assert wrong.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"kind": "NO_SUCH_KIND"}', b'{"amount": "' + b"9" * 600_000 + b'"}'],
    ids=["no JSON", "no such word", "too large"],
)
async def test_a_wrong_key_is_401_whatever_is_wrong_with_the_body(front_door: FrontDoor, body: bytes) -> None:
    none = await front_door.ask("POST", "/v1/credit_grants", key=None, body=body)
    wrong = await front_door.ask("POST", "/v1/credit_grants", key="tg_wrong", body=body)
    in_other_header = await front_door.ask("PATCH", "/v1/projects/web", key=None, body=body, x_api_key="tg_wrong")
    right = await front_door.ask("POST", "/v1/credit_grants", body=body)

    for answer in (none, wrong, in_other_header):
        assert_is_error(answer, 401, "authentication_error", "invalid_api_key")
        assert answer.json == none.json
        assert answer.headers["www-authenticate"] == "Bearer"
    assert right.status in (400, 413)


async def test_a_wrong_body_is_refused_also_while_nobody_can_look_at_the_key(lonely_front_door: FrontDoor) -> None:
    answer = await lonely_front_door.ask("POST", "/v1/credit_grants", body=b"{")

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/v1/nothing/at/all"),
        ("GET", "/"),
        ("POST", "/activity"),
        ("DELETE", "/v1/requests/7"),
        ("PUT", "/v1/credit_grants"),
        ("POST", "/tollgate.reporting.v1.ActivityService/GetActivity"),
    ],
)
async def test_an_unknown_path_and_a_wrong_method_are_404(front_door: FrontDoor, method: str, path: str) -> None:
    answer = await front_door.ask(method, path)

    assert_is_error(answer, 404, "not_found_error", "unknown_path")


@pytest.mark.parametrize(
    ("failure", "status", "kind", "code"),
    [
        ("bad-parameter", 400, "invalid_request_error", "invalid_request"),
        ("missing", 404, "not_found_error", "not_found"),
        ("exists", 409, "invalid_request_error", "already_exists"),
        ("no-credit", 402, "insufficient_credits", "insufficient_credits"),
        ("limited", 429, "rate_limit_error", "rate_limited"),
        ("provider-failed", 502, "provider_error", "provider_failed"),
        ("unavailable", 503, "service_unavailable", "service_unavailable"),
        ("bug", 503, "service_unavailable", "internal"),
        ("cancelled", 503, "service_unavailable", "service_unavailable"),
        ("unknown", 503, "service_unavailable", "service_unavailable"),
        ("late", 503, "service_unavailable", "service_unavailable"),
        ("unimplemented", 404, "not_found_error", "not_found_error"),
    ],
)
async def test_what_a_service_fails_with_leaves_as_documented(
    front_door: FrontDoor, failure: str, status: int, kind: str, code: str
) -> None:
    answer = await front_door.get(f"/activity?projectId={failure}")

    assert_is_error(answer, status, kind, code)


async def test_a_message_arrives_as_it_was_written(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity?projectId=quoted")

    message = assert_is_error(answer, 400, "invalid_request_error", "invalid_request")
    assert message == 'model has "quotes", a \\ and ","details":[{"reason":"FAKE"}] in it.\n'


async def test_a_bug_tells_nothing_of_itself(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity?projectId=bug")

    assert "secret" not in answer.text


@pytest.mark.parametrize(("failure", "seconds"), [("limited", "7"), ("unavailable", "1"), ("bug", "1")])
async def test_who_should_wait_is_told_how_long(front_door: FrontDoor, failure: str, seconds: str) -> None:
    answer = await front_door.get(f"/activity?projectId={failure}")

    assert answer.headers["retry-after"] == seconds


async def test_a_key_that_may_not_is_403(front_door: FrontDoor) -> None:
    answer = await front_door.ask("POST", "/v1/credit_grants", body=b"{}")

    assert_is_error(answer, 403, "permission_error", "permission_denied")


@pytest.mark.parametrize(
    ("body", "named"), [(b"{", ""), (b'{"grant_id": {}}', "grant_id"), (b'{"kind": "GOLD"}', "kind")]
)
async def test_a_body_that_does_not_fit_is_400_and_says_where(front_door: FrontDoor, body: bytes, named: str) -> None:
    answer = await front_door.ask("POST", "/v1/credit_grants", key=OPERATOR_KEY, body=body)

    message = assert_is_error(answer, 400, "invalid_request_error", "invalid_request")
    assert named in message


async def test_a_parameter_that_is_not_utf8_is_400(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity?projectId=%E9")

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")


async def test_a_body_above_half_a_mebibyte_is_413(front_door: FrontDoor) -> None:
    body = b'{"grant_id": "' + b"x" * 600_000 + b'"}'

    answer = await front_door.ask("POST", "/v1/credit_grants", key=OPERATOR_KEY, body=body)

    assert_is_error(answer, 413, "invalid_request_error", "request_too_large")


async def test_headers_beyond_all_measure_are_431(front_door: FrontDoor) -> None:
    answer = await front_door.get("/activity", x_large="x" * 70_000)

    assert answer.status == 431
    assert answer.json["error"]["type"] == "invalid_request_error"


async def test_what_is_not_http_is_400_in_the_documented_body(front_door: FrontDoor) -> None:
    head, body = await front_door.send_raw(b"Good morning\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b'"invalid_request_error"' in body


async def test_an_answer_that_takes_too_long_is_503(hasty_front_door: FrontDoor) -> None:
    answer = await hasty_front_door.get("/activity?projectId=slow")

    assert_is_error(answer, 503, "service_unavailable", "timeout")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/activity", "/v1/requests/7", "/v1/balance", "/v1/models", "/health"])
async def test_a_service_that_is_down_is_503(lonely_front_door: FrontDoor, path: str) -> None:
    answer = await lonely_front_door.get(path)

    assert_is_error(answer, 503, "service_unavailable", "service_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_a_service_that_comes_up_is_used_at_once(lonely_front_door: FrontDoor) -> None:
    before = await lonely_front_door.get("/activity")
    async with services_behind(lonely_front_door.addresses):
        after = await lonely_front_door.get("/activity")

    assert (before.status, after.status) == (503, 200)


async def test_anthropic_clients_find_the_type_they_look_for_when_the_router_is_down(
    lonely_front_door: FrontDoor,
) -> None:
    answer = await lonely_front_door.ask("POST", "/v1/messages", body=b"{}")

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "service_unavailable"
    assert answer.json["message"] == answer.json["error"]["message"]


async def test_native_grpc_gets_a_status_and_a_plain_message(
    front_door: FrontDoor, lonely_front_door: FrontDoor
) -> None:
    request = activity_service_pb2.GetActivityRequest()
    async with front_door.channel() as channel, lonely_front_door.channel() as lonely_channel:
        stranger = activity_service_pb2_grpc.ActivityServiceStub(channel).GetActivity(request)
        caller = activity_service_pb2_grpc.ActivityServiceStub(lonely_channel).GetActivity(
            request, metadata=(("x-api-key", "tg_reader"),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stranger
        with pytest.raises(grpc.aio.AioRpcError) as unreachable:
            await caller

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert unreachable.value.code() is grpc.StatusCode.UNAVAILABLE
    for error in (refused.value, unreachable.value):
        assert error.details()
        assert "{" not in str(error.details())


@pytest.mark.parametrize(
    "header",
    [b"#q: x", b"x-odd: caf\xe9", b"x-odd-bin: %%%", b"traceparent: \x7f"],
    ids=["name", "value", "-bin", "DEL"],
)
async def test_headers_that_grpc_cannot_carry_break_nothing(front_door: FrontDoor, header: bytes) -> None:
    lines = (b"GET /activity HTTP/1.1", b"host: x", b"authorization: Bearer tg_reader", header, b"connection: close")

    head, _ = await front_door.send_raw(b"\r\n".join((*lines, b"", b"")))

    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
