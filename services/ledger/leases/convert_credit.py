"""Leases and price bounds, wire ↔ values of the ledger."""

from collections.abc import Iterable

from services.common.errors import InvalidRequestError
from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.convert_values import time_to_proto
from services.ledger.leases.credit import LeaseWish
from services.ledger.leases.leases import LEASE_SECONDS, Decision, Wish
from services.ledger.prices.price_bounds import PricedModel
from services.ledger.pricing import DEFAULT_STORAGE_PRICE, PRICE_DECIMALS, PriceBound
from services.ledger.storage.books.leases import Lapsed, LeaseState, Returned
from services.ledger.wire_values import decimal_to_text
from tollgate.ledger.v1 import credit_service_pb2 as wire


def lease_wish_from_proto(request: wire.AcquireLeaseRequest) -> LeaseWish:
    return LeaseWish(
        organization_id=request.organization_id,
        lease_id=request.lease_id,
        api_key_id=request.api_key_id or None,
        producer_id=request.producer_id,
        epoch=request.epoch,
        wish=Wish(needed_pico=_pico("needed", request.needed), wanted_pico=_pico("wanted", request.wanted or "0")),
        returns=returns_from_proto(request.returns),
    )


def decision_to_proto(decision: Decision) -> wire.AcquireLeaseResponse:
    return wire.AcquireLeaseResponse(
        outcome=wire.LeaseOutcome.ValueType(decision.outcome),
        granted=usd_from_pico(decision.granted_pico),
        lease_seconds=LEASE_SECONDS,
        available=usd_from_pico(decision.available_pico),
    )


def returns_from_proto(returns: Iterable[wire.LeaseReturn]) -> list[Returned]:
    return [Returned(one.lease_id, _pico("returns.returned", one.returned)) for one in returns]


def lease_state_to_proto(state: LeaseState) -> wire.LeaseState:
    return wire.LeaseState(
        lease_id=state.lease_id, held=usd_from_pico(state.held_pico), expire_time=time_to_proto(state.expire_time)
    )


def lapsed_to_proto(lapsed: Iterable[Lapsed]) -> wire.ReleaseProducerResponse:
    amounts = [one.lapsed_pico for one in lapsed]
    return wire.ReleaseProducerResponse(lease_count=len(amounts), released=usd_from_pico(sum(amounts)))


def priced_model_from_proto(model: wire.PricedModel) -> PricedModel:
    return PricedModel(model.provider, model.model)


def bound_to_proto(bound: PriceBound | None) -> wire.PriceBound:
    """What is kept is charged for whether the call itself has a price or not."""
    storage_token = decimal_to_text(DEFAULT_STORAGE_PRICE)
    if bound is None:
        nothing = dict.fromkeys((field.name for field in wire.PriceBound.DESCRIPTOR.fields[1:-1]), "0")
        return wire.PriceBound(priced=False, storage_token=storage_token, **nothing)
    return wire.PriceBound(
        priced=True,
        input_token=_usd_from_atto(bound.input_token),
        output_token=_usd_from_atto(bound.output_token),
        media_input_token=_usd_from_atto(bound.media_input_token),
        media_output_token=_usd_from_atto(bound.media_output_token),
        output_image=_usd_from_atto(bound.output_image),
        request=_usd_from_atto(bound.request),
        web_search=_usd_from_atto(bound.web_search),
        storage_token=storage_token,
    )


def _usd_from_atto(atto: int) -> str:
    whole, fraction = divmod(atto, 10**PRICE_DECIMALS)
    return f"{whole}.{fraction:0{PRICE_DECIMALS}d}".rstrip("0").rstrip(".")


def _pico(field: str, amount: str) -> int:
    try:
        return pico_from_usd(amount)
    except ValueError as error:
        raise InvalidRequestError(field, str(error)) from error
