"""Discounts, wire ↔ domain."""

from datetime import datetime

from services.common.errors import InvalidRequestError
from services.ledger.accounts.accounts import organization_uuid, require_text
from services.ledger.convert_values import optional_time_to_proto, time_from_proto, time_to_proto
from services.ledger.prices.convert_prices import MODEL_LENGTH_MAX
from services.ledger.prices.price_book import Discount
from services.ledger.wire_values import decimal_to_text, fraction_from_text, require_name
from tollgate.ledger.v1 import price_service_pb2 as wire


def new_discount_from_proto(request: wire.SetDiscountRequest, now: datetime) -> Discount:
    if request.provider:
        require_name("provider", request.provider)
    require_text("model", request.model, least=0, most=MODEL_LENGTH_MAX)
    organization_id = str(organization_uuid(request.organization_id)) if request.organization_id else None
    if organization_id and not request.provider and not request.model:
        raise InvalidRequestError("provider", "or model must be named in a discount for an organization")
    valid_from = time_from_proto("valid_from", request.valid_from) if request.HasField("valid_from") else now
    valid_to = time_from_proto("valid_to", request.valid_to) if request.HasField("valid_to") else None
    if valid_to is not None and valid_to <= valid_from:
        raise InvalidRequestError("valid_to", "must be after valid_from")
    return Discount(
        discount_id=0,
        organization_id=organization_id,
        provider=request.provider or None,
        model=request.model or None,
        fraction=fraction_from_text("fraction", request.fraction),
        valid_from=valid_from,
        valid_to=valid_to,
    )


def discount_to_proto(discount: Discount) -> wire.Discount:
    return wire.Discount(
        discount_id=str(discount.discount_id),
        organization_id=discount.organization_id or "",
        provider=discount.provider or "",
        model=discount.model or "",
        fraction=decimal_to_text(discount.fraction),
        valid_from=time_to_proto(discount.valid_from),
        valid_to=optional_time_to_proto(discount.valid_to),
    )
