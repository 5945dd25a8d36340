"""Prices, wire ↔ domain. Whatever is wrong is named by its place: `prices.tiers[1].unit_prices[0].price`."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from services.common.errors import InvalidRequestError, TooLargeError
from services.ledger.accounts.accounts import require_text
from services.ledger.convert_values import time_from_proto, time_to_proto
from services.ledger.prices.price_book import PriceVersion
from services.ledger.pricing import (
    EVERY_DAY,
    MINUTES_PER_DAY,
    ImagePrice,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Window,
)
from services.ledger.wire_values import decimal_from_text, decimal_to_text, require_name
from tollgate.ledger.v1 import price_service_pb2 as wire

# What an operator publishes, as opposed to the catalogue.
OPERATOR_SOURCE = "operator"
UNIT_PRICES_MAX = 64
TIERS_MAX = 32
WINDOWS_MAX = 32
SERVICE_TIERS_MAX = 32
MODEL_LENGTH_MAX = 256
NAME_LENGTH_MAX = 64
CURRENCY = "USD"

_EXPONENTS = {10**exponent: exponent for exponent in range(10)}
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)

Sent = TypeVar("Sent")
Made = TypeVar("Made")


def new_version_from_proto(request: wire.PublishPriceRequest) -> PriceVersion:
    require_name("provider", request.provider)
    require_text("model", request.model, least=1, most=MODEL_LENGTH_MAX)
    if not request.HasField("valid_from"):
        raise InvalidRequestError("valid_from", "is missing; say from when on the price holds")
    if not request.HasField("prices"):
        raise InvalidRequestError("prices", "are missing")
    valid_from = time_from_proto("valid_from", request.valid_from)
    prices = prices_from_proto(request.prices)
    return PriceVersion(0, request.provider, request.model, valid_from, OPERATOR_SOURCE, prices)


def version_to_proto(version: PriceVersion) -> wire.PriceVersion:
    return wire.PriceVersion(
        version_id=str(version.version_id),
        provider=version.provider,
        model=version.model,
        valid_from=time_to_proto(version.valid_from),
        source=version.source,
        prices=prices_to_proto(version.prices),
    )


def prices_from_proto(prices: wire.Prices) -> Prices:
    if prices.currency not in ("", CURRENCY):
        raise InvalidRequestError("prices.currency", f"must be {CURRENCY}, got {prices.currency!r}")
    if not prices.unit_prices:
        raise InvalidRequestError("prices.unit_prices", "must hold at least one price; 0 is a price")
    if prices.tokens_per_input_image < 0:
        raise InvalidRequestError("prices.tokens_per_input_image", "must not be negative")
    base = _rates("prices", prices.unit_prices)
    tiers = _tiers("prices", prices.tiers)
    windows = _each("prices.windows", prices.windows, WINDOWS_MAX, _window)
    service_tiers = _each("prices.service_tiers", prices.service_tiers, SERVICE_TIERS_MAX, _service_tier)
    with _blaming("prices"):
        return Prices(
            base=base,
            tiers=tiers,
            windows=windows,
            service_tiers=service_tiers,
            tokens_per_input_image=prices.tokens_per_input_image or None,
        )


def prices_to_proto(prices: Prices) -> wire.Prices:
    return wire.Prices(
        unit_prices=_rates_to_proto(prices.base),
        tiers=_tiers_to_proto(prices.tiers),
        windows=[
            wire.PriceWindow(
                start_time=_minute_to_text(window.start_minute),
                end_time=_minute_to_text(window.end_minute),
                weekdays=[] if window.weekdays == EVERY_DAY else sorted(window.weekdays),
                unit_prices=_rates_to_proto(window.rates),
                tiers=_tiers_to_proto(window.tiers),
            )
            for window in prices.windows
        ],
        service_tiers=[
            wire.ServiceTierPrices(
                service_tier=tier.name,
                multiplier=decimal_to_text(tier.multiplier),
                unit_prices=_rates_to_proto(tier.rates),
                tiers=_tiers_to_proto(tier.tiers),
            )
            for tier in prices.service_tiers
        ],
        tokens_per_input_image=prices.tokens_per_input_image or 0,
        currency=CURRENCY,
    )


def _window(place: str, window: wire.PriceWindow) -> Window:
    start = _minute_from_text(f"{place}.start_time", window.start_time)
    # Midnight as an end is that of the day's end.
    end = _minute_from_text(f"{place}.end_time", window.end_time) or MINUTES_PER_DAY
    rates = _rates(place, window.unit_prices)
    tiers = _tiers(place, window.tiers)
    with _blaming(place):
        return Window(
            start_minute=start,
            end_minute=end,
            weekdays=frozenset(window.weekdays) or EVERY_DAY,
            rates=rates,
            tiers=tiers,
        )


def _service_tier(place: str, tier: wire.ServiceTierPrices) -> ServiceTier:
    require_text(f"{place}.service_tier", tier.service_tier, least=1, most=NAME_LENGTH_MAX)
    multiplier = decimal_from_text(f"{place}.multiplier", tier.multiplier or "1")
    rates = _rates(place, tier.unit_prices)
    tiers = _tiers(place, tier.tiers)
    with _blaming(place):
        return ServiceTier(name=tier.service_tier, multiplier=multiplier, rates=rates, tiers=tiers)


def _tiers(place: str, tiers: Sequence[wire.PriceTier]) -> tuple[Tier, ...]:
    return _each(f"{place}.tiers", tiers, TIERS_MAX, _tier)


def _tier(place: str, tier: wire.PriceTier) -> Tier:
    bound = tier.up_to_input_tokens if tier.HasField("up_to_input_tokens") else None
    return Tier(bound, _rates(place, tier.unit_prices))


def _tiers_to_proto(tiers: tuple[Tier, ...]) -> list[wire.PriceTier]:
    return [
        wire.PriceTier(up_to_input_tokens=tier.up_to_tokens, unit_prices=_rates_to_proto(tier.rates)) for tier in tiers
    ]


def _rates(place: str, unit_prices: Sequence[wire.UnitPrice]) -> Rates:
    place = f"{place}.unit_prices"
    if len(unit_prices) > UNIT_PRICES_MAX:
        raise TooLargeError(place, UNIT_PRICES_MAX)
    rates = Rates()
    for index, sent in enumerate(unit_prices):
        here = f"{place}[{index}]"
        single = _single_rate(here, sent)
        if single.by_unit.keys() & rates.by_unit.keys():
            raise InvalidRequestError(f"{here}.unit", f"is priced twice: {wire.PriceUnit.Name(sent.unit)}")
        with _blaming(here):
            rates = Rates({**rates.by_unit, **single.by_unit}, rates.images + single.images)
    return rates


def _single_rate(place: str, sent: wire.UnitPrice) -> Rates:
    if sent.unit not in Unit._value2member_map_:
        raise InvalidRequestError(f"{place}.unit", f"must be a known unit, got {sent.unit}")
    exponent = _EXPONENTS.get(sent.per or 1)
    if exponent is None:
        raise InvalidRequestError(f"{place}.per", f"must be a power of ten up to 1000000000, got {sent.per}")
    price = decimal_from_text(f"{place}.price", sent.price, divisor_exponent=exponent)
    unit = Unit(sent.unit)
    if unit is Unit.OUTPUT_IMAGE:
        require_text(f"{place}.size", sent.size, least=0, most=NAME_LENGTH_MAX)
        require_text(f"{place}.quality", sent.quality, least=0, most=NAME_LENGTH_MAX)
        return Rates(images=(ImagePrice(sent.size, sent.quality, price),))
    if sent.size or sent.quality:
        raise InvalidRequestError(f"{place}.size", "and quality are only for PRICE_UNIT_OUTPUT_IMAGE")
    return Rates({unit: price})


def _rates_to_proto(rates: Rates) -> list[wire.UnitPrice]:
    of_units = [(unit, "", "", price) for unit, price in sorted(rates.by_unit.items())]
    of_images = [(Unit.OUTPUT_IMAGE, image.size, image.quality, image.price) for image in rates.images]
    return [
        wire.UnitPrice(
            unit=wire.PriceUnit.Name(unit),  # type: ignore[arg-type]
            price=decimal_to_text(price),
            per=1,
            size=size,
            quality=quality,
        )
        for unit, size, quality, price in (*of_units, *of_images)
    ]


def _each(place: str, sent: Sequence[Sent], most: int, make: Callable[[str, Sent], Made]) -> tuple[Made, ...]:
    """One value for each message, each knowing its place."""
    if len(sent) > most:
        raise TooLargeError(place, most)
    return tuple(make(f"{place}[{index}]", message) for index, message in enumerate(sent))


@contextmanager
def _blaming(place: str) -> Iterator[None]:
    """Names the place where a value would not be made."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequestError(place, f"cannot be so: {error}") from None


def _minute_from_text(field: str, text: str) -> int:
    if not _TIME_OF_DAY.fullmatch(text):
        raise InvalidRequestError(field, f"must be a time of day from 00:00 to 24:00, got {text[:50]!r}")
    return int(text[:2]) * 60 + int(text[3:])


def _minute_to_text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
