"""A ledger for the tests of the sender: keeps the contract of RecordUsage, and misbehaves when told to."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.common.authentication import Caller
from services.common.errors import DomainError, ErrorKind
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from tollgate.ledger.v1 import usage_service_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import (
    RecordResult,
    RecordStatus,
    RecordUsageRequest,
    RecordUsageResponse,
)
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceServicer, add_UsageServiceServicer_to_server

SERVICE_TOKEN = "service-token-of-the-tests"
# Figures must be right within two seconds of a call's end.
SOON_SECONDS = 2.0

Hook = Callable[[], Awaitable[None]]


class SequenceGapError(DomainError):
    kind = ErrorKind.NOT_READY
    reason = "SEQUENCE_GAP"

    def __init__(self, committed_sequence: int) -> None:
        super().__init__("Records are missing.", committed_sequence=str(committed_sequence))


class RefusedError(DomainError):
    kind = ErrorKind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


async def nothing() -> None:
    """What happens where nothing was arranged."""


async def until(condition: Callable[[], bool], seconds: float = SOON_SECONDS) -> None:
    """Raises TimeoutError when it does not come about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.01)


@dataclass
class Ledger(UsageServiceServicer):
    """Outlives its server, as a database does."""

    # By producer and epoch.
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    # In the order they came, each once.
    records: dict[str, UsageRecord] = field(default_factory=dict)
    requests: list[RecordUsageRequest] = field(default_factory=list)
    statuses: dict[str, RecordStatus.ValueType] = field(default_factory=dict)
    before_commit: Hook = nothing
    after_commit: Hook = nothing

    async def RecordUsage(self, request: RecordUsageRequest, context: object) -> RecordUsageResponse:
        self.requests.append(request)
        await self.before_commit()
        log = (request.producer_id, request.epoch)
        committed = self.committed.get(log, 0)
        if request.records[0].sequence > committed + 1:
            raise SequenceGapError(committed)
        results = [self._record(record, committed) for record in request.records]
        self.committed[log] = max(committed, request.records[-1].sequence)
        await self.after_commit()
        return RecordUsageResponse(results=results, committed_sequence=self.committed[log])

    async def until_it_has(self, count: int, seconds: float = SOON_SECONDS) -> None:
        """Raises TimeoutError when it does not get them."""
        await until(lambda: len(self.records) >= count, seconds)

    def _record(self, record: UsageRecord, committed: int) -> RecordResult:
        status = self.statuses.get(record.request_id, RecordStatus.RECORD_STATUS_RECORDED)
        if record.sequence <= committed or record.request_id in self.records:
            status = RecordStatus.RECORD_STATUS_DUPLICATE
        if status == RecordStatus.RECORD_STATUS_RECORDED:
            self.records[record.request_id] = record
        return RecordResult(request_id=record.request_id, status=status, reason="as arranged")


class _NoKeys:
    async def find(self, key_hash: bytes) -> Caller | None:
        return None


def server_of(ledger: Ledger, address: str) -> GrpcServer:
    """A process of the ledger's, so to speak; not started."""
    settings = ServerSettings(listen_address=address, service_token=SERVICE_TOKEN, reflection=False, drain_seconds=0)
    descriptor = usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"]
    return GrpcServer(settings, _NoKeys(), [Service(descriptor, add_UsageServiceServicer_to_server, ledger)])
