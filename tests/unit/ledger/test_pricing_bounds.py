"""No call costs more than its bound, whatever it used, in whichever tier and at whatever time of day."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger.pricing import (
    Funding,
    ImagePrice,
    Outcome,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Usage,
    price_bound,
    price_call,
)
from tests.unit.ledger.pricing_builders import FLAT, ORDINARY, per_million
from tests.unit.ledger.test_pricing_oracle import fractions, prices, usages

# A line is rounded by itself, and a call has at most so many.
ROUNDING_PICO = 16
ATTO_PER_PICO = 10**6


def most_pico(usage: Usage, prices: Prices, discount: Decimal) -> int:
    bound = price_bound(prices, discount)
    # Parts that do not fit into their whole together are charged as reported. Where images of the prompt are counted
    # and not their tokens, a price may say how many those are.
    parts_in = (
        usage.cached_input_tokens + usage.cache_write_tokens + usage.input_audio_tokens + usage.input_image_tokens
    )
    parts_out = usage.reasoning_tokens + usage.output_image_tokens + usage.output_audio_tokens
    input_tokens = max(usage.input_tokens, parts_in + usage.input_images * (prices.tokens_per_input_image or 0))
    atto = (
        input_tokens * bound.media_input_token
        + max(usage.output_tokens, parts_out) * bound.media_output_token
        + sum(images.count for images in usage.output_images) * bound.output_image
        + bound.request
        + usage.web_searches * bound.web_search
    )
    return -(-atto // ATTO_PER_PICO) + ROUNDING_PICO


@settings(max_examples=100, deadline=None)
@given(
    usage=usages,
    prices=prices,
    discount=fractions,
    service_tier=st.sampled_from(["", "flex", "priority"]),
    outcome=st.sampled_from([Outcome.SUCCESS, Outcome.CONTENT_REJECTED, Outcome.CLIENT_GONE]),
    start_time=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_no_call_costs_more_than_its_bound(
    *, usage: Usage, prices: Prices, discount: Decimal, service_tier: str, outcome: Outcome, start_time: datetime
) -> None:
    call = price_call(
        usage,
        outcome=outcome,
        funding=Funding.CREDITS,
        cache_hit=False,
        payload_retained=False,
        service_tier=service_tier,
        start_time=start_time,
        prices=prices,
        discount=discount,
    )

    assert call.charged_pico <= most_pico(usage, prices, discount)


def test_the_bound_of_ordinary_prices_is_those_prices() -> None:
    bound = price_bound(ORDINARY, Decimal("0.2"))

    assert (bound.input_token, bound.output_token) == (2_000 * 10**9, 8_000 * 10**9)


def test_the_dearest_tier_and_service_tier_count() -> None:
    tiered = Prices(
        base=per_million(input="1", output="2"),
        tiers=(Tier(1_000, per_million(input="1")), Tier(None, per_million(input="4"))),
        service_tiers=(ServiceTier(name="priority", multiplier=Decimal(3)),),
    )

    bound = price_bound(tiered, Decimal(0))

    assert (bound.input_token, bound.output_token) == (12_000 * 10**9, 6_000 * 10**9)


def test_media_count_only_where_there_may_be_some() -> None:
    spoken = Prices(base=per_million(input="1", input_audio="40", output="2", output_audio="80"))

    bound = price_bound(spoken, Decimal(0))

    assert (bound.input_token, bound.media_input_token) == (1_000 * 10**9, 40_000 * 10**9)
    assert (bound.output_token, bound.media_output_token) == (2_000 * 10**9, 80_000 * 10**9)


def test_fees_and_images_have_bounds_of_their_own() -> None:
    pictures = Prices(base=Rates({Unit.REQUEST: Decimal("0.01")}, (ImagePrice("", "", Decimal("0.04")),)))

    assert price_bound(pictures, Decimal(0)).output_image == 4 * 10**16
    assert (price_bound(FLAT, Decimal(0)).request, price_bound(FLAT, Decimal(0)).web_search) == (3 * 10**16, 2 * 10**16)
