"""What changes a price: size, tier, hour and how a call ended."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from services.common.money import usd_from_pico
from services.ledger.pricing import (
    Funding,
    Outcome,
    PricedCall,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Usage,
    Window,
)
from tests.unit.ledger.pricing_builders import CACHED, FLAT, ORDINARY, a_call, costs, per_million, quantities

# Tiers, service tiers, time of day


TIERED = Prices(
    base=per_million(input="1", cached_input="0.5", output="4"),
    tiers=(Tier(1000, Rates()), Tier(2000, per_million(input="2")), Tier(4000, per_million(input="3", output="9"))),
)


@pytest.mark.parametrize(
    ("input_tokens", "input_price", "output_price"),
    [(1000, "1", "4"), (1001, "2", "4"), (2000, "2", "4"), (4000, "3", "9"), (9999, "3", "9")],
    ids=["at the bound", "past the bound", "at the next", "at the last", "beyond the last"],
)
def test_the_first_tier_whose_bound_is_not_below_the_input_prices_the_whole_call(
    input_tokens: int, input_price: str, output_price: str
) -> None:
    call = a_call(Usage(input_tokens=input_tokens, cached_input_tokens=100, output_tokens=10), TIERED)

    # No tier names cached input, so it keeps the base price throughout.
    assert quantities(call) == [
        ("INPUT", input_tokens - 100, input_price),
        ("CACHED_INPUT", 100, "0.5"),
        ("OUTPUT", 10, output_price),
    ]


SERVED = Prices(
    base=Rates({**per_million(input="1", output="4").by_unit, Unit.REQUEST: Decimal("0.01")}),
    tiers=(Tier(1000, Rates()), Tier(None, per_million(input="2"))),
    service_tiers=(
        ServiceTier(name="flex", multiplier=Decimal("0.5")),
        ServiceTier(name="priority", multiplier=Decimal(2), rates=per_million(output="7")),
    ),
)


@pytest.mark.parametrize(
    ("service_tier", "input_tokens", "lines"),
    [
        ("flex", 10, [("INPUT", 10, "0.5"), ("OUTPUT", 10, "2"), ("REQUEST", 1, "10000")]),
        ("flex", 1001, [("INPUT", 1001, "1"), ("OUTPUT", 10, "2"), ("REQUEST", 1, "10000")]),
        ("priority", 10, [("INPUT", 10, "2"), ("OUTPUT", 10, "7"), ("REQUEST", 1, "10000")]),
        ("standard", 10, [("INPUT", 10, "1"), ("OUTPUT", 10, "4"), ("REQUEST", 1, "10000")]),
    ],
    ids=["scaled", "scaled in a tier", "scaled and replaced", "one the price does not know"],
)
def test_a_service_tier_changes_prices_of_tokens_and_no_flat_fee(
    service_tier: str, input_tokens: int, lines: list[tuple[str, int, str]]
) -> None:
    call = a_call(Usage(input_tokens=input_tokens, output_tokens=10), SERVED, service_tier=service_tier)

    assert quantities(call) == lines


def test_storage_is_scaled_by_no_service_tier_and_taken_off_by_no_discount() -> None:
    usage = Usage(input_tokens=1000, output_tokens=500)

    call = a_call(usage, SERVED, service_tier="flex", discount=Decimal(1), payload_retained=True)

    assert costs(call)["DATA_STORAGE"] == "0.000015"
    assert usd_from_pico(call.charged_pico) == "0.000015"


def at(hour: int, minute: int = 0, second: int = 0, *, day: int = 4, zone: timezone = UTC) -> datetime:
    return datetime(2026, 5, day, hour, minute, second, tzinfo=zone)


NIGHT = Window(start_minute=16 * 60 + 30, end_minute=30, rates=per_million(input="1"))
WEEKEND = Window(start_minute=0, end_minute=1440, weekdays=frozenset({6, 7}), rates=per_million(input="2"))
MORNING = Window(start_minute=9 * 60, end_minute=10 * 60, rates=per_million(input="5"))
BY_TIME = Prices(base=per_million(input="3", output="4"), windows=(WEEKEND, NIGHT, MORNING))


@pytest.mark.parametrize(
    ("start_time", "input_price"),
    [
        (at(16, 29, 59), "3"),
        (at(16, 30), "1"),
        (at(0, 29, 59), "1"),
        (at(0, 30), "3"),
        (at(8, 59, 59), "3"),
        (at(9, 0), "5"),
        (at(9, 59, 59), "5"),
        (at(10, 0), "3"),
        (at(9, day=9), "2"),
        (at(2, 30, day=5, zone=timezone(timedelta(hours=8))), "1"),
    ],
    ids=[
        "before one past midnight",
        "at its start",
        "just before its end",
        "at its end",
        "before one within the day",
        "at the start of that",
        "just before the end of that",
        "at the end of that",
        "where two hold, in the first",
        "in another zone",
    ],
)
def test_a_window_holds_from_its_start_until_just_before_its_end(start_time: datetime, input_price: str) -> None:
    call = a_call(Usage(input_tokens=10, output_tokens=10), BY_TIME, start_time=start_time)

    assert quantities(call) == [("INPUT", 10, input_price), ("OUTPUT", 10, "4")]


# Who is charged


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.PROVIDER_ERROR,
        Outcome.GATEWAY_ERROR,
        Outcome.TIMEOUT,
        Outcome.CLIENT_ERROR,
        Outcome.REFUSED,
        Outcome.UNKNOWN,
    ],
)
@pytest.mark.parametrize("prices", [ORDINARY, None], ids=["priced", "no price"])
def test_a_call_that_failed_costs_nothing_and_is_not_unpriced(outcome: Outcome, prices: Prices | None) -> None:
    call = a_call(CACHED, prices, outcome=outcome, payload_retained=True)

    assert call == PricedCall(lines=(), cost_pico=0, saved_pico=0, charged_pico=0, unpriced=False)


def test_a_rejected_call_pays_the_rejection_fee_and_what_was_used() -> None:
    prices = Prices(base=Rates({**FLAT.base.by_unit, **ORDINARY.base.by_unit}))

    call = a_call(Usage(input_tokens=1000), prices, outcome=Outcome.CONTENT_REJECTED, payload_retained=True)

    assert costs(call) == {"INPUT": "0.0025", "REJECTION": "0.03", "DATA_STORAGE": "0.00001"}


def test_a_rejected_call_without_usage_pays_the_fee_and_no_storage() -> None:
    call = a_call(None, FLAT, outcome=Outcome.CONTENT_REJECTED, payload_retained=True)

    assert costs(call) == {"REJECTION": "0.03"}


def test_a_client_that_left_pays_what_was_streamed() -> None:
    call = a_call(Usage(input_tokens=1000, output_tokens=50), outcome=Outcome.CLIENT_GONE, payload_retained=True)

    assert costs(call) == {"INPUT": "0.0025", "OUTPUT": "0.0005", "DATA_STORAGE": "0.0000105"}


@pytest.mark.parametrize("prices", [FLAT, None], ids=["priced", "no price"])
def test_a_client_that_left_before_anything_came_pays_nothing(prices: Prices | None) -> None:
    call = a_call(None, prices, outcome=Outcome.CLIENT_GONE, payload_retained=True)

    assert call == PricedCall(lines=(), cost_pico=0, saved_pico=0, charged_pico=0, unpriced=False)


def test_lines_of_an_own_key_are_shown_and_not_charged() -> None:
    call = a_call(CACHED, funding=Funding.OWN_KEY, payload_retained=True)

    assert {line.line.name: line.charged for line in call.lines} == {
        "INPUT": False,
        "CACHED_INPUT": False,
        "OUTPUT": False,
        "DATA_STORAGE": True,
    }
