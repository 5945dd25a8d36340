"""Speaks the wire for the recorder of usage."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.ledger.usage.convert_usage import delivery_from_proto, receipt_to_proto
from services.ledger.usage.recording import UsageRecorder
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest, RecordUsageResponse
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceServicer


class UsageServicer(UsageServiceServicer):
    """`UsageService`."""

    def __init__(self, recorder: UsageRecorder, *, clock: Callable[[], datetime]) -> None:
        self._recorder = recorder
        self._clock = clock

    async def RecordUsage(self, request: RecordUsageRequest, context: Any) -> RecordUsageResponse:
        delivery = delivery_from_proto(request, self._clock())
        return receipt_to_proto(await self._recorder.record(delivery))
