"""The reporting service on a real channel over a real database, and how its calls end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from development.addresses import Addresses
from services.common.database import open_database
from services.common.grpc_server import GrpcServer, ServerSettings
from services.common.key_store import DatabaseKeyDirectory
from services.reporting.wiring import services_over
from tests.conftest import Database
from tests.contract.reporting.books import NOW, Key
from tollgate.reporting.v1.activity_service_pb2 import ActivityPeriod, GetActivityRequest, GetActivityResponse
from tollgate.reporting.v1.activity_service_pb2_grpc import ActivityServiceStub
from tollgate.reporting.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from tollgate.reporting.v1.export_service_pb2_grpc import ExportServiceStub
from tollgate.reporting.v1.insight_service_pb2_grpc import InsightServiceStub
from tollgate.reporting.v1.request_service_pb2 import (
    GetRequestRequest,
    GetRequestResponse,
    ListRequestsRequest,
    ListRequestsResponse,
)
from tollgate.reporting.v1.request_service_pb2_grpc import RequestServiceStub

SECONDS = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call failed."""

    code: grpc.StatusCode
    reason: str
    message: str
    field: str


class Clock:
    """What the service takes for now."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


class Reporting:
    """The service as the bearers of keys see it. Parameters are those of the requests."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self.clock = clock
        self._activity: Any = ActivityServiceStub(channel)
        self.summaries: Any = self._activity
        self._requests: Any = RequestServiceStub(channel)
        self.exports: Any = ExportServiceStub(channel)
        self.analytics: Any = AnalyticsServiceStub(channel)
        self.insights: Any = InsightServiceStub(channel)

    async def activity(self, key: Key, **parameters: str) -> list[ActivityPeriod]:
        request = GetActivityRequest(**parameters)
        answer: GetActivityResponse = await self._activity.GetActivity(request, metadata=key.metadata, timeout=SECONDS)
        return list(answer.activity)

    async def one_day(self, key: Key, **parameters: str) -> ActivityPeriod:
        (day,) = await self.activity(key, **parameters)
        return day

    async def activity_headers(self, key: Key, **parameters: str) -> dict[str, str]:
        call = self._activity.GetActivity(GetActivityRequest(**parameters), metadata=key.metadata, timeout=SECONDS)
        await call
        return dict(await call.initial_metadata())

    async def list(self, key: Key, **parameters: str) -> ListRequestsResponse:
        request = ListRequestsRequest(**fields_of(parameters))
        answer: ListRequestsResponse = await self._requests.ListRequests(
            request, metadata=key.metadata, timeout=SECONDS
        )
        return answer

    async def get(self, key: Key, request_id: str, organization_id: str = "") -> GetRequestResponse:
        request = GetRequestRequest(request_id=request_id, organization_id=organization_id)
        answer: GetRequestResponse = await self._requests.GetRequest(request, metadata=key.metadata, timeout=SECONDS)
        return answer


def fields_of(parameters: dict[str, str]) -> dict[str, Any]:
    """The fields of a request for parameters as REST spells them."""
    renamed = {"from": "from_time", "to": "to_time"}
    fields: dict[str, Any] = {renamed.get(name, name): value for name, value in parameters.items() if "." not in name}
    metadata = {name.removeprefix("metadata."): value for name, value in parameters.items() if "." in name}
    return fields | {"metadata": metadata} if metadata else fields


async def refusal_of(call: Any) -> Refusal:
    """Fails the test unless the call fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert status is not None, error
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        return Refusal(error.code(), info.reason, status.message, info.metadata.get("field", ""))
    raise AssertionError("the call was not refused")


@asynccontextmanager
async def running_reporting(database: Database) -> AsyncIterator[Reporting]:
    engine = open_database(database.reporting_url)
    clock = Clock()
    settings = ServerSettings(
        listen_address=Addresses.free().reporting, service_token="inside", reflection=False, drain_seconds=0
    )
    server = GrpcServer(settings, DatabaseKeyDirectory(engine), services_over(engine, clock))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(settings.listen_address) as channel:
            yield Reporting(channel, clock)
    finally:
        await server.stop()
        await engine.dispose()
