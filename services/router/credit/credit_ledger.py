"""The ledger's `CreditService` over gRPC, with failures as meaning."""

from collections.abc import Awaitable
from typing import TypeVar

import grpc

from services.common.errors import DomainError, InvalidRequestError, NotFoundError, UnavailableError
from services.common.grpc_client import service_metadata
from services.router.spool.register import Epoch
from tollgate.ledger.v1 import credit_service_pb2 as wire
from tollgate.ledger.v1.credit_service_pb2_grpc import CreditServiceStub

TIMEOUT_SECONDS = 2.0
T = TypeVar("T")


class CreditLedger:
    """Lives as long as its channel. Every method raises UnavailableError when the ledger cannot answer."""

    def __init__(self, channel: grpc.aio.Channel, service_token: str) -> None:
        self._stub = CreditServiceStub(channel)
        self._metadata = service_metadata(service_token)

    async def acquire(self, request: wire.AcquireLeaseRequest) -> wire.AcquireLeaseResponse:
        return await _meant(self._stub.AcquireLease(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS))

    async def renew(self, request: wire.RenewLeaseRequest) -> wire.RenewLeaseResponse:
        return await _meant(self._stub.RenewLease(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS))

    async def release(self, request: wire.ReleaseLeaseRequest) -> wire.ReleaseLeaseResponse:
        return await _meant(self._stub.ReleaseLease(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS))

    async def price_bounds(self, request: wire.GetPriceBoundsRequest) -> wire.GetPriceBoundsResponse:
        return await _meant(self._stub.GetPriceBounds(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS))

    async def end_lives(self, before: Epoch) -> None:
        """Says that no record of an earlier life of this log can come any more.

        A ledger that does not know of leases has none to free, and a router that is newer than it must not wait for it.
        """
        request = wire.ReleaseProducerRequest(producer_id=str(before.producer_id), before_epoch=before.number)
        try:
            await self._stub.ReleaseProducer(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise _meaning(error) from error


async def _meant(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _meaning(error) from error


def _meaning(error: grpc.aio.AioRpcError) -> DomainError:
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFoundError("such organization or key")
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError("the lease", f"was refused: {error.details()}")
    return UnavailableError("Nobody can tell right now how much credit is left; try again.")
