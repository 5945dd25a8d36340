"""No call costs more than its bound, whatever it used, in whichever tier and at whatever time of day."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger.leases.convert_credit import bound_to_proto
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
from services.router.credit.worst_case import bound_from_proto, cost_bound_pico
from services.router.routing.routing import Candidate
from tests.unit.ledger.pricing_builders import FLAT, ORDINARY, per_million
from tests.unit.ledger.test_pricing_oracle import fractions, prices, usages
from tollgate.ledger.v1 import usage_pb2

GPT = Candidate("openai", "gpt-4o", "gpt-4o")


def most_pico(usage: Usage, prices: Prices, discount: Decimal, outcome: Outcome, *, retained: bool) -> int:
    """As a router reckons it, from what the ledger tells it over the wire."""
    bound = bound_from_proto(bound_to_proto(price_bound(prices, discount)))
    images = [
        usage_pb2.OutputImages(size=one.size, quality=one.quality, count=one.count) for one in usage.output_images
    ]
    quantities = {name: getattr(usage, name) for name in Usage.__slots__ if name != "output_images"}
    record = usage_pb2.UsageRecord(
        outcome=usage_pb2.Outcome.ValueType(outcome),
        funding=usage_pb2.FUNDING_CREDITS,
        usage=usage_pb2.Usage(**quantities, output_images=images),
        payload_retained=retained,
    )
    return cost_bound_pico(record, GPT, bound)


@settings(max_examples=100, deadline=None)
@given(
    usage=usages,
    prices=prices,
    discount=fractions,
    service_tier=st.sampled_from(["", "flex", "priority"]),
    outcome=st.sampled_from([Outcome.SUCCESS, Outcome.CONTENT_REJECTED, Outcome.CLIENT_GONE]),
    start_time=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    retained=st.booleans(),
)
def test_no_call_costs_more_than_its_bound(
    *,
    usage: Usage,
    prices: Prices,
    discount: Decimal,
    service_tier: str,
    outcome: Outcome,
    start_time: datetime,
    retained: bool,
) -> None:
    call = price_call(
        usage,
        outcome=outcome,
        funding=Funding.CREDITS,
        cache_hit=False,
        payload_retained=retained,
        service_tier=service_tier,
        start_time=start_time,
        prices=prices,
        discount=discount,
    )

    assert call.charged_pico <= most_pico(usage, prices, discount, outcome, retained=retained)


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
