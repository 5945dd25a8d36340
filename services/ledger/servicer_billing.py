"""Speaks the wire for billing."""

from typing import Any

from services.common.grpc_calls import current_caller
from services.ledger.billing import Billing
from services.ledger.convert_billing import grant_to_proto, new_grant_from_proto, standing_to_proto
from tollgate.ledger.v1.billing_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    GrantCreditsRequest,
    GrantCreditsResponse,
)
from tollgate.ledger.v1.billing_service_pb2_grpc import BillingServiceServicer


class BillingServicer(BillingServiceServicer):
    """`BillingService`."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def GrantCredits(self, request: GrantCreditsRequest, context: Any) -> GrantCreditsResponse:
        return grant_to_proto(await self._billing.grant(new_grant_from_proto(request, current_caller())))

    async def GetBalance(self, request: GetBalanceRequest, context: Any) -> GetBalanceResponse:
        organization_id = current_caller().one_organization(request.organization_id)
        return standing_to_proto(organization_id, await self._billing.standing(organization_id))
