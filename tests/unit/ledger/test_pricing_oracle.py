"""Any call costs what an independent calculation in fractions says, to the last pico-dollar."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger.pricing import (
    EVERY_DAY,
    Funding,
    ImagePrice,
    Line,
    Outcome,
    OutputImages,
    PricedCall,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Usage,
    Window,
    price_call,
)
from tests.unit.ledger.pricing_oracle import Oracle

# Twelve decimals for tokens leave room for six of a multiplier.
token_prices = st.decimals(min_value=0, max_value=Decimal("0.01"), places=12)
flat_prices = st.decimals(min_value=0, max_value=10, places=18)
fractions = st.decimals(min_value=0, max_value=1, places=18) | st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)])
names = st.sampled_from(["", "1024x1024", "hd"])
TOKEN_UNITS = [unit for unit in Unit if unit.is_token]
FLAT_UNITS = [Unit.REQUEST, Unit.WEB_SEARCH, Unit.REJECTION]

token_rates = st.dictionaries(st.sampled_from(TOKEN_UNITS), token_prices).map(Rates)
images = st.lists(
    st.builds(ImagePrice, names, names, flat_prices), max_size=3, unique_by=lambda image: (image.size, image.quality)
).map(tuple)
rates = st.builds(
    lambda tokens, flat, images: Rates({**tokens.by_unit, **flat}, images),
    token_rates,
    st.dictionaries(st.sampled_from(FLAT_UNITS), flat_prices),
    images,
)


def tiers_of(some_rates: st.SearchStrategy[Rates]) -> st.SearchStrategy[tuple[Tier, ...]]:
    bounds = st.lists(st.integers(0, 1_000), max_size=2, unique=True).map(sorted)
    return st.builds(
        lambda bounds, open_ended, rates: tuple(map(Tier, [*bounds, *([None] if open_ended else [])], rates)),
        bounds,
        st.booleans(),
        st.lists(some_rates, min_size=3, max_size=3),
    )


windows = st.builds(
    Window,
    start_minute=st.integers(0, 700),
    end_minute=st.integers(701, 1440),
    weekdays=st.frozensets(st.integers(1, 7), min_size=1) | st.just(EVERY_DAY),
    rates=rates,
    tiers=tiers_of(rates),
) | st.builds(Window, start_minute=st.integers(1000, 1439), end_minute=st.integers(1, 600), rates=rates)
service_tiers = st.builds(
    ServiceTier,
    name=st.just("flex"),
    multiplier=st.decimals(min_value=0, max_value=3, places=6),
    rates=token_rates,
    tiers=tiers_of(token_rates),
)
prices = st.builds(
    Prices,
    base=rates,
    tiers=tiers_of(rates),
    windows=st.lists(windows, max_size=2).map(tuple),
    service_tiers=st.lists(service_tiers, max_size=1).map(tuple),
    tokens_per_input_image=st.none() | st.integers(1, 1_000),
)
# At 10 USD a piece, more would be refused as too large for a line.
counts = st.integers(0, 2_000) | st.integers(0, 900_000)
# Parts may be larger than their wholes; both sides have to clamp them.
usages = st.builds(
    Usage,
    **{name: counts | st.just(0) for name in Usage.__slots__ if name not in ("output_images", "input_images")},
    input_images=st.integers(0, 20),
    output_images=st.lists(st.builds(OutputImages, names, names, st.integers(1, 50)), max_size=3).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(
    usage=usages,
    prices=prices,
    discount=fractions,
    service_tier=st.sampled_from(["", "flex", "priority"]),
    outcome=st.sampled_from([Outcome.SUCCESS, Outcome.CONTENT_REJECTED, Outcome.CLIENT_GONE]),
    start_time=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_every_line_is_what_an_independent_calculation_says(
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

    assert lines_of(call) == Oracle(usage, prices, service_tier, start_time).lines(outcome, discount)
    assert call.cost_pico == call.charged_pico == sum(line.cost_pico for line in call.lines)
    assert call.saved_pico == sum(line.list_cost_pico - line.cost_pico for line in call.lines)


def lines_of(call: PricedCall) -> dict[tuple[Line, Fraction], tuple[int, int, int]]:
    lines = {
        (line.line, Fraction(line.unit_price)): (line.quantity, line.cost_pico, line.list_cost_pico)
        for line in call.lines
    }
    assert len(lines) == len(call.lines), "two lines of one kind and price"
    return lines
