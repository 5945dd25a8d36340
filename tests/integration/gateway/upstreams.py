"""Small servers behind Envoy that say what they were asked and answer as told."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.struct_pb2 import NULL_VALUE, Value

from development.addresses import Addresses, port_of
from services.common.authentication import Caller, Scope, hash_key
from services.common.errors import DomainError, ErrorKind, InvalidRequestError, NotFoundError, UnavailableError
from services.common.grpc_calls import headers_of
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.tls import NO_TLS, Tls
from tollgate.ledger.v1 import billing_service_pb2 as billing
from tollgate.ledger.v1 import billing_service_pb2_grpc, usage_service_pb2_grpc
from tollgate.ledger.v1 import usage_service_pb2 as usage
from tollgate.reporting.v1 import activity_service_pb2 as activity
from tollgate.reporting.v1 import activity_service_pb2_grpc, request_service_pb2_grpc
from tollgate.reporting.v1 import request_service_pb2 as requests
from tollgate.router.v1 import inference_service_pb2 as inference
from tollgate.router.v1 import inference_service_pb2_grpc

READER_KEY = "tg_reader"
OPERATOR_KEY = "tg_operator"
SERVICE_TOKEN = "from inside"

CALLERS = {
    hash_key(READER_KEY): Caller(scope=Scope.ORGANIZATION, organization_id="org-1", read_only=True),
    hash_key(OPERATOR_KEY): Caller(scope=Scope.OPERATOR),
}


class Keys:
    async def find(self, key_hash: bytes) -> Caller | None:
        return CALLERS.get(key_hash)


class NoCreditError(DomainError):
    kind, reason = ErrorKind.EXHAUSTED, "INSUFFICIENT_CREDITS"


class RateLimitedError(DomainError):
    kind, reason, retry_after_seconds = ErrorKind.EXHAUSTED, "RATE_LIMITED", 7


class ProviderFailedError(DomainError):
    kind, reason = ErrorKind.UNAVAILABLE, "PROVIDER_FAILED"


class ExistsError(DomainError):
    kind, reason = ErrorKind.ALREADY_EXISTS, "ALREADY_EXISTS"


# What `GET /activity?projectId=<name>` fails with.
FAILURES: Mapping[str, Exception] = {
    "bad-parameter": InvalidRequestError("days", "must be a whole number from 1 to 365, got 'x'."),
    "quoted": InvalidRequestError("model", 'has "quotes", a \\ and ","details":[{"reason":"FAKE"}] in it.\n'),
    "missing": NotFoundError("request 7"),
    "exists": ExistsError("It exists already."),
    "no-credit": NoCreditError("No credit is left."),
    "limited": RateLimitedError("Too many calls."),
    "provider-failed": ProviderFailedError("openai answered 503."),
    "unavailable": UnavailableError("The database is away."),
    "bug": ZeroDivisionError("secret detail"),
}
# The same, with a bare status as gRPC libraries send it.
STATUSES: Mapping[str, grpc.StatusCode] = {
    "cancelled": grpc.StatusCode.CANCELLED,
    "unimplemented": grpc.StatusCode.UNIMPLEMENTED,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "unknown": grpc.StatusCode.UNKNOWN,
}


class Activity(activity_service_pb2_grpc.ActivityServiceServicer):
    def __init__(self) -> None:
        self.seen: list[activity.GetActivityRequest] = []
        self.headers: list[dict[str, str]] = []

    async def GetActivity(self, request: activity.GetActivityRequest, context: Any) -> activity.GetActivityResponse:  # noqa: N802
        self.seen.append(request)
        self.headers.append(headers_of(context))
        if request.project_id in FAILURES:
            raise FAILURES[request.project_id]
        if request.project_id in STATUSES:
            await context.abort(STATUSES[request.project_id], "a library says")
        if request.project_id == "slow":
            await asyncio.sleep(5)
        await context.send_initial_metadata((("x-tollgate-as-of", "2026-05-01T00:00:00.000Z"),))
        period_count = 20_000 if request.project_id == "huge" else 1
        period = activity.ActivityPeriod(date="2026-05-01", request_count=3, cost=0.1)
        return activity.GetActivityResponse(activity=[period] * period_count)


class Requests(request_service_pb2_grpc.RequestServiceServicer):
    async def ListRequests(self, request: requests.ListRequestsRequest, context: Any) -> requests.ListRequestsResponse:  # noqa: N802
        if headers_of(context).get("if-none-match"):
            known = (("etag", 'W/"known"'), ("x-tollgate-not-modified", "1"))
            await context.send_initial_metadata(known)
            return requests.ListRequestsResponse()
        unknown = requests.RequestSummary(
            id="1", input_tokens=Value(null_value=NULL_VALUE), output_tokens=Value(number_value=0)
        )
        return requests.ListRequestsResponse(requests=[unknown], next_page_token=request.page_token, total=1)

    async def GetRequest(self, request: requests.GetRequestRequest, context: Any) -> requests.GetRequestResponse:  # noqa: N802
        return requests.GetRequestResponse(request=requests.RequestSummary(id=request.request_id))


class Billing(billing_service_pb2_grpc.BillingServiceServicer):
    async def GrantCredits(self, request: billing.GrantCreditsRequest, context: Any) -> billing.GrantCreditsResponse:  # noqa: N802
        return billing.GrantCreditsResponse(grant_id=request.grant_id, amount=request.amount)

    async def GetBalance(self, request: billing.GetBalanceRequest, context: Any) -> billing.GetBalanceResponse:  # noqa: N802
        return billing.GetBalanceResponse(balance="0.000018450000")


class Usage(usage_service_pb2_grpc.UsageServiceServicer):
    async def RecordUsage(self, request: usage.RecordUsageRequest, context: Any) -> usage.RecordUsageResponse:  # noqa: N802
        return usage.RecordUsageResponse()


class Inference(inference_service_pb2_grpc.InferenceServiceServicer):
    async def CreateChatCompletion(  # noqa: N802
        self, request: inference.CreateChatCompletionRequest, context: Any
    ) -> inference.CreateChatCompletionResponse:
        return inference.CreateChatCompletionResponse(body=request.body)

    async def StreamChatCompletion(  # noqa: N802
        self, request: inference.StreamChatCompletionRequest, context: Any
    ) -> AsyncIterator[inference.StreamChatCompletionResponse]:
        for _ in range(3):
            yield inference.StreamChatCompletionResponse(body=request.body)


class ModelRoutes(BaseHTTPRequestHandler):
    """The router's HTTP face: says what it was asked. A path with `fail` in its query fails in the router's own way."""

    protocol_version = "HTTP/1.1"
    FAILURE = b'{ "type": "error",  "error": {"type": "overloaded_error"} }'

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def _answer(self, body: bytes) -> None:
        fails = "fail" in self.path
        seen = {"path": self.path, "body": body.decode(), "headers": {k.lower(): v for k, v in self.headers.items()}}
        content = self.FAILURE if fails else json.dumps(seen).encode()
        self.send_response(529 if fails else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        """Stays silent."""


@asynccontextmanager
async def _grpc_server(address: str, tls: Tls, *services: Service) -> AsyncIterator[None]:
    settings = ServerSettings(
        listen_address=address, service_token=SERVICE_TOKEN, reflection=True, drain_seconds=0, tls=tls
    )
    server = GrpcServer(settings, Keys(), services)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


@contextlib.contextmanager
def _http_server(address: str) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", port_of(address)), ModelRoutes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _service(module: Any, register: Any, servicer: object) -> Service:
    (descriptor,) = module.DESCRIPTOR.services_by_name.values()
    return Service(descriptor, register, servicer)


@asynccontextmanager
async def services_behind(addresses: Addresses, tls: Tls = NO_TLS) -> AsyncIterator[Activity]:
    """Everything that Envoy passes requests on to."""
    asked = Activity()  # type: ignore[abstract]  # it answers what the tests ask
    reporting = (
        _service(activity, activity_service_pb2_grpc.add_ActivityServiceServicer_to_server, asked),
        _service(requests, request_service_pb2_grpc.add_RequestServiceServicer_to_server, Requests()),
    )
    ledger = (
        _service(billing, billing_service_pb2_grpc.add_BillingServiceServicer_to_server, Billing()),  # type: ignore[abstract]  # it answers what the tests ask
        _service(usage, usage_service_pb2_grpc.add_UsageServiceServicer_to_server, Usage()),
    )
    router = _service(inference, inference_service_pb2_grpc.add_InferenceServiceServicer_to_server, Inference())  # type: ignore[abstract]  # it answers what the tests ask
    async with (
        _grpc_server(addresses.reporting, tls, *reporting),
        _grpc_server(addresses.ledger, tls, *ledger),
        _grpc_server(addresses.router_grpc, tls, router),
    ):
        with _http_server(addresses.router_http):
            yield asked
