"""A call to be tried out and what it would cost, wire ↔ domain."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.common.errors import InvalidRequestError, TooLargeError
from services.common.money import usd_from_pico
from services.ledger.accounts.accounts import require_text
from services.ledger.convert_values import choice, time_from_proto
from services.ledger.prices.convert_prices import MODEL_LENGTH_MAX, NAME_LENGTH_MAX, prices_from_proto
from services.ledger.prices.price_book import NO_DISCOUNT, PriceBook
from services.ledger.pricing import (
    AmountTooLargeError,
    CostLine,
    Funding,
    Outcome,
    OutputImages,
    PricedCall,
    Prices,
    Quantities,
    Usage,
    normalise,
    price_call,
)
from services.ledger.usage.convert_usage import OUTPUT_IMAGE_KINDS_MAX, QUANTITY_MAX
from services.ledger.wire_values import decimal_to_text, fraction_from_text, require_name
from tollgate.ledger.v1 import price_service_pb2 as wire
from tollgate.ledger.v1 import usage_pb2

_COUNTED_APART = ("cached_input_image_tokens", "output_images")
_QUANTITIES = [field.name for field in usage_pb2.Usage.DESCRIPTOR.fields if field.name not in _COUNTED_APART]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A call to be tried out."""

    # None when nothing is known of it.
    usage: Quantities | None
    usage_clamped: bool
    # Prices to try; None to take those of the stored model.
    prices: Prices | None
    provider: str
    model: str
    start_time: datetime
    discount: Decimal
    service_tier: str
    outcome: Outcome
    funding: Funding
    cache_hit: bool
    payload_retained: bool


def preview_from_proto(request: wire.PreviewCostRequest, now: datetime) -> Preview:
    usage = usage_from_proto(request.usage) if request.HasField("usage") else None
    normalised, clamped = (None, False) if usage is None else normalise(usage)
    require_text("service_tier", request.service_tier, least=0, most=NAME_LENGTH_MAX)
    return Preview(
        usage=normalised,
        usage_clamped=clamped,
        prices=_inline_prices(request),
        provider=request.provider,
        model=request.model,
        start_time=time_from_proto("start_time", request.start_time) if request.HasField("start_time") else now,
        discount=fraction_from_text("discount", request.discount) if request.discount else NO_DISCOUNT,
        service_tier=request.service_tier,
        outcome=choice("outcome", Outcome, request.outcome, default=Outcome.SUCCESS),
        funding=choice("funding", Funding, request.funding, default=Funding.CREDITS),
        cache_hit=request.cache_hit,
        payload_retained=request.payload_retained,
    )


def preview_to_proto(preview: Preview, book: PriceBook) -> wire.PreviewCostResponse:
    """Prices the call and says what came out."""
    prices, version_id = preview.prices, None
    if prices is None:
        version = book.version_at(preview.provider, preview.model, preview.start_time)
        if version is not None:
            prices, version_id = version.prices, str(version.version_id)
    call = _priced(preview, prices)
    return wire.PreviewCostResponse(
        lines=[line_to_proto(line) for line in call.lines],
        total=None if call.cost_pico is None else usd_from_pico(call.cost_pico),
        list_cost=None if call.cost_pico is None else usd_from_pico(call.cost_pico + call.saved_pico),
        saved=usd_from_pico(call.saved_pico),
        charged=usd_from_pico(call.charged_pico),
        unpriced=call.unpriced,
        version_id=version_id,
        usage_clamped=preview.usage_clamped,
    )


def line_to_proto(line: CostLine) -> wire.CostLine:
    return wire.CostLine(
        line=line.line.name,
        quantity=str(line.quantity),
        unit_price=decimal_to_text(line.unit_price),
        discount=decimal_to_text(line.discount),
        cost=usd_from_pico(line.cost_pico),
        list_cost=usd_from_pico(line.list_cost_pico),
        charged=line.charged,
    )


def usage_from_proto(sent: usage_pb2.Usage) -> Usage:
    values = {name: _quantity(f"usage.{name}", getattr(sent, name)) for name in _QUANTITIES}
    cached_images = None
    if sent.HasField("cached_input_image_tokens"):
        cached_images = _quantity("usage.cached_input_image_tokens", sent.cached_input_image_tokens)
    if len(sent.output_images) > OUTPUT_IMAGE_KINDS_MAX:
        raise TooLargeError("usage.output_images", OUTPUT_IMAGE_KINDS_MAX)
    images = tuple(_images(f"usage.output_images[{index}]", each) for index, each in enumerate(sent.output_images))
    return Usage(output_images=images, cached_input_image_tokens=cached_images, **values)


def _priced(preview: Preview, prices: Prices | None) -> PricedCall:
    try:
        return price_call(
            preview.usage,
            outcome=preview.outcome,
            funding=preview.funding,
            cache_hit=preview.cache_hit,
            payload_retained=preview.payload_retained,
            service_tier=preview.service_tier,
            start_time=preview.start_time,
            prices=prices,
            discount=preview.discount,
        )
    except AmountTooLargeError as error:
        raise InvalidRequestError("usage", f"costs too much: {error}") from None


def _inline_prices(request: wire.PreviewCostRequest) -> Prices | None:
    if request.HasField("prices"):
        if request.provider or request.model:
            raise InvalidRequestError("prices", "must be left out where provider and model name stored ones")
        return prices_from_proto(request.prices)
    require_name("provider", request.provider)
    require_text("model", request.model, least=1, most=MODEL_LENGTH_MAX)
    return None


def _images(place: str, sent: usage_pb2.OutputImages) -> OutputImages:
    require_text(f"{place}.size", sent.size, least=0, most=NAME_LENGTH_MAX)
    require_text(f"{place}.quality", sent.quality, least=0, most=NAME_LENGTH_MAX)
    return OutputImages(sent.size, sent.quality, _quantity(f"{place}.count", sent.count, least=1))


def _quantity(field: str, value: int, *, least: int = 0) -> int:
    if not least <= value <= QUANTITY_MAX:
        raise InvalidRequestError(field, f"must be from {least} to {QUANTITY_MAX}, got {value}")
    return value
