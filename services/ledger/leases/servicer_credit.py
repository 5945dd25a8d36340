"""Speaks the wire for leases of credit."""

from typing import Any

from services.common.errors import TooLargeError
from services.ledger.leases.convert_credit import (
    bound_to_proto,
    decision_to_proto,
    lapsed_to_proto,
    lease_state_to_proto,
    lease_wish_from_proto,
    priced_model_from_proto,
    returns_from_proto,
)
from services.ledger.leases.credit import Credit
from services.ledger.leases.leases import LEASE_SECONDS
from services.ledger.prices.price_bounds import VALID_SECONDS, PriceBounds
from tollgate.ledger.v1.credit_service_pb2 import (
    AcquireLeaseRequest,
    AcquireLeaseResponse,
    GetPriceBoundsRequest,
    GetPriceBoundsResponse,
    ReleaseLeaseRequest,
    ReleaseLeaseResponse,
    ReleaseProducerRequest,
    ReleaseProducerResponse,
    RenewLeaseRequest,
    RenewLeaseResponse,
)
from tollgate.ledger.v1.credit_service_pb2_grpc import CreditServiceServicer

MODELS_MAX = 100


class CreditServicer(CreditServiceServicer):
    """`CreditService`."""

    def __init__(self, credit: Credit, bounds: PriceBounds) -> None:
        self._credit = credit
        self._bounds = bounds

    async def AcquireLease(self, request: AcquireLeaseRequest, context: Any) -> AcquireLeaseResponse:
        return decision_to_proto(await self._credit.acquire(lease_wish_from_proto(request)))

    async def RenewLease(self, request: RenewLeaseRequest, context: Any) -> RenewLeaseResponse:
        in_force = await self._credit.renew(request.organization_id, request.lease_ids)
        return RenewLeaseResponse(lease_ids=in_force, lease_seconds=LEASE_SECONDS)

    async def ReleaseLease(self, request: ReleaseLeaseRequest, context: Any) -> ReleaseLeaseResponse:
        states = await self._credit.give_back(request.organization_id, returns_from_proto(request.returns))
        return ReleaseLeaseResponse(leases=map(lease_state_to_proto, states))

    async def ReleaseProducer(self, request: ReleaseProducerRequest, context: Any) -> ReleaseProducerResponse:
        return lapsed_to_proto(await self._credit.end_lives(request.producer_id, request.before_epoch))

    async def GetPriceBounds(self, request: GetPriceBoundsRequest, context: Any) -> GetPriceBoundsResponse:
        if len(request.models) > MODELS_MAX:
            raise TooLargeError("models", MODELS_MAX)
        models = map(priced_model_from_proto, request.models)
        bounds = [bound_to_proto(self._bounds.bound(request.organization_id, model)) for model in models]
        return GetPriceBoundsResponse(bounds=bounds, valid_seconds=VALID_SECONDS)
