"""The ledger's `CreditService` for tests of the router: it decides as the real one does, and keeps no books."""

from dataclasses import replace
from typing import Any

from services.common.money import PICO_PER_USD, pico_from_usd, usd_from_pico
from services.ledger.leases.leases import (
    LEASE_SECONDS,
    Budget,
    Lease,
    LeaseOutcome,
    Means,
    Wish,
    decide,
    returned_more,
    settled_more,
)
from tollgate.ledger.v1 import credit_service_pb2 as wire
from tollgate.ledger.v1.credit_service_pb2_grpc import CreditServiceServicer
from tollgate.ledger.v1.usage_pb2 import UsageRecord

PLENTY_PICO = 1_000_000 * PICO_PER_USD
# 2.50 USD per million tokens of input, 10 of output.
BOUND = wire.PriceBound(
    priced=True,
    input_token="0.0000025",
    output_token="0.00001",
    media_input_token="0.0000025",
    media_output_token="0.00001",
    output_image="0",
    request="0",
    web_search="0",
    storage_token="0.00000001",
)


class FakeCredit(CreditServiceServicer):
    """Every organization has plenty, unless told otherwise."""

    def __init__(self) -> None:
        # By organization; what calls cost is not taken off.
        self.worth_pico: dict[str, int] = {}
        # By organization or key, where one is limited.
        self.limit_pico: dict[str, int] = {}
        self.acquired: list[wire.AcquireLeaseRequest] = []
        self.ended: list[wire.ReleaseProducerRequest] = []
        self._leases: dict[str, tuple[str, Lease]] = {}

    def held_pico(self, organization_id: str) -> int:
        return sum(lease.held_pico for owner, lease in self._leases.values() if owner == organization_id)

    def settle(self, record: UsageRecord) -> None:
        """A record has come."""
        if record.lease_id:
            owner, lease = self._leases[record.lease_id]
            more = settled_more(lease, pico_from_usd(record.reserved))
            self._leases[record.lease_id] = owner, replace(lease, settled_pico=lease.settled_pico + more)

    async def AcquireLease(self, request: wire.AcquireLeaseRequest, context: Any) -> wire.AcquireLeaseResponse:  # noqa: N802
        self.acquired.append(request)
        self._give_back(request.returns)
        worth_pico = self.worth_pico.get(request.organization_id, PLENTY_PICO)
        wish = Wish(needed_pico=pico_from_usd(request.needed), wanted_pico=pico_from_usd(request.wanted))
        held_pico = self.held_pico(request.organization_id)
        key, organization = (self._budget(each, held_pico) for each in (request.api_key_id, request.organization_id))
        means = Means(worth_pico=worth_pico, held_pico=held_pico, key=key, organization=organization)
        decision = decide(wish, means)
        if decision.outcome is LeaseOutcome.GRANTED:
            self._leases[request.lease_id] = request.organization_id, Lease(granted_pico=decision.granted_pico)
        return wire.AcquireLeaseResponse(
            outcome=wire.LeaseOutcome.ValueType(decision.outcome),
            granted=usd_from_pico(decision.granted_pico),
            lease_seconds=LEASE_SECONDS,
            available=usd_from_pico(decision.available_pico),
        )

    async def RenewLease(self, request: wire.RenewLeaseRequest, context: Any) -> wire.RenewLeaseResponse:  # noqa: N802
        return wire.RenewLeaseResponse(lease_ids=request.lease_ids, lease_seconds=LEASE_SECONDS)

    async def ReleaseLease(self, request: wire.ReleaseLeaseRequest, context: Any) -> wire.ReleaseLeaseResponse:  # noqa: N802
        self._give_back(request.returns)
        return wire.ReleaseLeaseResponse()

    async def ReleaseProducer(  # noqa: N802
        self, request: wire.ReleaseProducerRequest, context: Any
    ) -> wire.ReleaseProducerResponse:
        self.ended.append(request)
        return wire.ReleaseProducerResponse(released="0")

    async def GetPriceBounds(self, request: wire.GetPriceBoundsRequest, context: Any) -> wire.GetPriceBoundsResponse:  # noqa: N802
        return wire.GetPriceBoundsResponse(bounds=[BOUND] * len(request.models), valid_seconds=10)

    def _budget(self, whose: str, held_pico: int) -> Budget | None:
        """In these tests all that an organization holds is held by one key."""
        limit_pico = self.limit_pico.get(whose)
        return None if limit_pico is None else Budget(limit_pico=limit_pico, spent_pico=0, held_pico=held_pico)

    def _give_back(self, returns: Any) -> None:
        for one in returns:
            owner, lease = self._leases[one.lease_id]
            more = returned_more(lease, pico_from_usd(one.returned))
            self._leases[one.lease_id] = owner, replace(lease, returned_pico=lease.returned_pico + more)
