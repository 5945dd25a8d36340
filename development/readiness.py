"""Asks the parts of the stack whether they are ready."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

PROBE_SECONDS = 1.0


def answers_grpc_health(address: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return is_ready


def answers_http(url: str) -> Callable[[], Awaitable[bool]]:
    """Ready when a GET is answered with 200."""

    async def is_ready() -> bool:
        async with ClientBuilder().timeout(timedelta(seconds=PROBE_SECONDS)).build() as client:
            try:
                answer = await client.get(url).build().send()
            except PyreqwestError:
                return False
            return answer.status == 200

    return is_ready


def all_of(*probes: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        for probe in probes:
            if not await probe():
                return False
        return True

    return is_ready
