"""What calls can cost at most, whatever they turn out to use. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from services.ledger.pricing.prices import Prices
from services.ledger.pricing.tariff import Rate, Tariff, rates_for, tariff_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBound:
    """The most that one of each costs after the discount, in USD with 18 decimals as a whole number (atto-USD)."""

    input_token: int
    output_token: int
    # Where images or audio may be among them.
    media_input_token: int
    media_output_token: int
    # 0 where images are not priced one by one.
    output_image: int
    # The flat fee, of an answer or of a rejection.
    request: int
    web_search: int


def price_bound(prices: Prices, discount: Decimal) -> PriceBound:
    """The dearest of every layer that can apply to a call: tiers, times of day and service tiers."""
    return joined(_bound(tariff) for tariff in _tariffs(prices, discount))


def joined(bounds: Iterable[PriceBound]) -> PriceBound:
    """What holds for each of them. At least one."""
    every = list(bounds)
    return PriceBound(
        input_token=max(one.input_token for one in every),
        output_token=max(one.output_token for one in every),
        media_input_token=max(one.media_input_token for one in every),
        media_output_token=max(one.media_output_token for one in every),
        output_image=max(one.output_image for one in every),
        request=max(one.request for one in every),
        web_search=max(one.web_search for one in every),
    )


def _tariffs(prices: Prices, discount: Decimal) -> Iterator[Tariff]:
    segments = (*prices.bounds, sum(prices.bounds[-1:]) + 1)
    service_tiers = ("", *(tier.name for tier in prices.service_tiers))
    for input_tokens in segments:
        for window in (None, *prices.windows):
            for service_tier in service_tiers:
                yield tariff_of(rates_for(prices, input_tokens, service_tier, window), discount, 0)


def _bound(tariff: Tariff) -> PriceBound:
    text_in = (tariff.input_text, tariff.cached_text, tariff.cache_write, tariff.cache_write_1h)
    media_in = (tariff.input_image, tariff.cached_image, tariff.input_audio, tariff.cached_audio)
    text_out = (tariff.output_text, tariff.reasoning)
    media_out = (tariff.output_image_token, tariff.output_audio)
    return PriceBound(
        input_token=_dearest(*text_in),
        output_token=_dearest(*text_out),
        media_input_token=_dearest(*text_in, *media_in),
        media_output_token=_dearest(*text_out, *media_out),
        output_image=_dearest(*tariff.images.values()),
        request=_dearest(tariff.request, tariff.rejection),
        web_search=_dearest(tariff.web_search),
    )


def _dearest(*rates: Rate | None) -> int:
    return max((_atto_rounded_up(rate) for rate in rates if rate is not None), default=0)


def _atto_rounded_up(rate: Rate) -> int:
    # Rates are fractions of pico-USD, a million atto-USD each.
    return -(-rate.cost_numerator * 1_000_000 // rate.cost_denominator)
