"""What prices come to under given circumstances: one rate per kind of token, fallbacks applied, ready to multiply."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import gcd

from services.ledger.pricing.prices import ATTO, Prices, Rates, Tier, Unit, Window, atto_of

PICO = 10**12
# A handful of discounts times tiers and windows is ordinary; previews could ask for anything.
_TARIFFS_MAX = 128


class Rate:
    """One unit price after one discount, as fractions of pico-USD.

    Within a tariff two rates are the same object exactly when their unit prices are equal, so identity decides which
    quantities share a line.
    """

    __slots__ = ("cost_denominator", "cost_numerator", "discount", "list_denominator", "list_numerator", "unit_price")

    def __init__(self, unit_price: Decimal, discount: Decimal) -> None:
        self.unit_price = unit_price
        self.discount = discount
        price = atto_of(unit_price)
        self.list_numerator, self.list_denominator = _reduced(price * PICO, ATTO)
        self.cost_numerator, self.cost_denominator = _reduced(price * PICO * (ATTO - atto_of(discount)), ATTO * ATTO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """The rates of one call. None means that nothing prices the unit, fallbacks included."""

    input_text: Rate | None
    cached_text: Rate | None
    cached_audio: Rate | None
    cached_image: Rate | None
    # Whether cached images have a price of their own; without one nobody has to know how many there were.
    splits_cached_images: bool
    cache_write: Rate | None
    cache_write_1h: Rate | None
    input_image: Rate | None
    tokens_per_input_image: int
    input_audio: Rate | None
    output_text: Rate | None
    # Without a price of its own, reasoning is text like any other.
    reasoning: Rate | None
    output_image_token: Rate | None
    output_audio: Rate | None
    # By size and quality; empty where images are not priced one by one.
    images: dict[tuple[str, str], Rate]
    image_of_no_name: Rate | None
    request: Rate | None
    web_search: Rate | None
    rejection: Rate | None

    def image(self, size: str, quality: str) -> Rate | None:
        """The rate of one generated image: by size and quality, by either, else the default, else the dearest."""
        images = self.images
        return (
            images.get((size, quality)) or images.get((size, "")) or images.get(("", quality)) or self.image_of_no_name
        )


def tariff_for(
    prices: Prices, *, input_tokens: int, service_tier: str, start_time: datetime, discount: Decimal
) -> Tariff:
    """The tariff of a call, derived on first use and kept with the prices."""
    window = _window_at(prices.windows, start_time) if prices.windows else None
    bounds = prices.bounds
    segment = bisect_left(bounds, input_tokens) if bounds else 0
    key = (segment, service_tier if prices.service_tiers else "", window, discount)
    tariff = prices.tariffs.get(key)
    if tariff is None:
        if len(prices.tariffs) >= _TARIFFS_MAX:
            prices.tariffs.clear()
        # Every call of a segment is in the same tiers, so any token count of it stands for all of them.
        tokens = bounds[segment] if segment < len(bounds) else sum(bounds[-1:]) + 1
        rates = rates_for(prices, tokens, service_tier, None if window is None else prices.windows[window])
        tariff = prices.tariffs[key] = tariff_of(rates, discount, prices.tokens_per_input_image or 0)
    return tariff


def _window_at(windows: tuple[Window, ...], start_time: datetime) -> int | None:
    moment = start_time.astimezone(UTC)
    minute, weekday = moment.hour * 60 + moment.minute, moment.isoweekday()
    return next((index for index, window in enumerate(windows) if window.holds(minute, weekday)), None)


def rates_for(prices: Prices, input_tokens: int, service_tier: str, window: Window | None) -> Rates:
    """All layers, each over the one before."""
    rates = prices.base.overlaid_with(_tier_rates(prices.tiers, input_tokens))
    if window is not None:
        rates = rates.overlaid_with(window.rates).overlaid_with(_tier_rates(window.tiers, input_tokens))
    for tier in prices.service_tiers:
        if tier.name == service_tier:
            rates = rates.scaled(tier.multiplier).overlaid_with(tier.rates)
            rates = rates.overlaid_with(_tier_rates(tier.tiers, input_tokens))
    return rates


def _tier_rates(tiers: tuple[Tier, ...], input_tokens: int) -> Rates:
    """The first tier whose bound is not below the whole input; beyond the last bound, the last tier."""
    for tier in tiers:
        if tier.up_to_tokens is None or input_tokens <= tier.up_to_tokens:
            return tier.rates
    return tiers[-1].rates if tiers else Rates()


def tariff_of(rates: Rates, discount: Decimal, tokens_per_input_image: int) -> Tariff:
    shared: dict[Decimal, Rate] = {}

    def rate(price: Decimal) -> Rate:
        return shared.get(price) or shared.setdefault(price, Rate(price, discount))

    def first(*units: Unit) -> Rate | None:
        """The first of the units that has a price."""
        return next((rate(rates.by_unit[unit]) for unit in units if unit in rates.by_unit), None)

    def fee(unit: Unit) -> Rate | None:
        """A flat fee of nothing is no fee, and no line on anybody's bill."""
        return rate(rates.by_unit[unit]) if rates.by_unit.get(unit) else None

    images = {(image.size, image.quality): rate(image.price) for image in rates.images}
    dearest = max(images.values(), key=lambda image: image.unit_price, default=None)
    return Tariff(
        input_text=first(Unit.INPUT_TOKEN),
        cached_text=first(Unit.CACHED_INPUT_TOKEN, Unit.INPUT_TOKEN),
        cached_audio=first(
            Unit.CACHED_INPUT_AUDIO_TOKEN, Unit.CACHED_INPUT_TOKEN, Unit.INPUT_AUDIO_TOKEN, Unit.INPUT_TOKEN
        ),
        cached_image=first(
            Unit.CACHED_INPUT_IMAGE_TOKEN, Unit.CACHED_INPUT_TOKEN, Unit.INPUT_IMAGE_TOKEN, Unit.INPUT_TOKEN
        ),
        splits_cached_images=Unit.CACHED_INPUT_IMAGE_TOKEN in rates.by_unit,
        cache_write=first(Unit.CACHE_WRITE_TOKEN),
        cache_write_1h=first(Unit.CACHE_WRITE_1H_TOKEN, Unit.CACHE_WRITE_TOKEN),
        input_image=first(Unit.INPUT_IMAGE_TOKEN, Unit.INPUT_TOKEN),
        tokens_per_input_image=tokens_per_input_image,
        input_audio=first(Unit.INPUT_AUDIO_TOKEN, Unit.INPUT_TOKEN),
        output_text=first(Unit.OUTPUT_TOKEN),
        reasoning=first(Unit.REASONING_TOKEN),
        output_image_token=first(Unit.OUTPUT_IMAGE_TOKEN, Unit.OUTPUT_TOKEN),
        output_audio=first(Unit.OUTPUT_AUDIO_TOKEN, Unit.OUTPUT_TOKEN),
        images=images,
        image_of_no_name=images.get(("", ""), dearest),
        request=fee(Unit.REQUEST),
        web_search=first(Unit.WEB_SEARCH),
        rejection=fee(Unit.REJECTION),
    )


def _reduced(numerator: int, denominator: int) -> tuple[int, int]:
    divisor = gcd(numerator, denominator)
    return numerator // divisor, denominator // divisor
