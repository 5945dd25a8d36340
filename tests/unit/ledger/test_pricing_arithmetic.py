"""Amounts are exact, and what cannot be exact is refused."""

from decimal import Decimal
from typing import Any

import pytest

from services.ledger.pricing import (
    AmountTooLargeError,
    ImagePrice,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Usage,
    Window,
    normalise,
)
from tests.unit.ledger.pricing_builders import FLAT, a_call, quantities

DEFAULT_IMAGE = ImagePrice("", "", Decimal("0.05"))


# Arithmetic


@pytest.mark.parametrize(
    ("price", "quantity", "cost_pico"),
    [
        ("0.0000000000005", 1, 0),
        ("0.0000000000005", 3, 2),
        ("0.0000000000005", 5, 2),
        ("0.000000000000500001", 1, 1),
        ("0.000000009375000000", 1, 9375),
    ],
    ids=["half to even below", "half to even above", "half to even below again", "more than half", "whole"],
)
def test_a_line_is_rounded_half_to_even_to_whole_pico_dollars(price: str, quantity: int, cost_pico: int) -> None:
    call = a_call(Usage(input_tokens=quantity), Prices(base=Rates({Unit.INPUT_TOKEN: Decimal(price)})))

    assert call.cost_pico == cost_pico


def test_a_line_is_rounded_once_after_the_discount() -> None:
    # 1.5 pico-dollars less 70 % is 0.45. Rounded before the discount too, it would be 2, then 0.6, then 1.
    prices = Prices(base=Rates({Unit.INPUT_TOKEN: Decimal("0.0000000000015")}))

    call = a_call(Usage(input_tokens=1), prices, discount=Decimal("0.7"))

    assert (call.cost_pico, call.saved_pico) == (0, 2)


def test_large_amounts_are_exact() -> None:
    prices = Prices(base=Rates({Unit.INPUT_TOKEN: Decimal("0.000009000000000001")}))

    call = a_call(Usage(input_tokens=10**12), prices)

    assert call.cost_pico == 9_000_000_000_001_000_000


def test_an_amount_that_no_line_can_hold_is_refused() -> None:
    with pytest.raises(AmountTooLargeError, match="more than a line can hold"):
        a_call(Usage(input_tokens=10**12), Prices(base=Rates({Unit.INPUT_TOKEN: Decimal(1)})))


# Bad usage


def test_a_part_larger_than_its_whole_is_clamped_and_told() -> None:
    reported = Usage(
        input_tokens=10,
        cached_input_tokens=20,
        cache_write_tokens=11,
        cache_write_1h_tokens=12,
        input_audio_tokens=30,
        cached_input_audio_tokens=40,
        input_image_tokens=5,
        cached_input_image_tokens=6,
        output_tokens=7,
        reasoning_tokens=8,
        output_image_tokens=9,
        output_audio_tokens=10,
        web_searches=3,
    )

    usage, clamped = normalise(reported)

    assert clamped
    assert usage == Usage(
        input_tokens=10,
        cached_input_tokens=10,
        cache_write_tokens=10,
        cache_write_1h_tokens=10,
        input_audio_tokens=10,
        cached_input_audio_tokens=10,
        input_image_tokens=5,
        cached_input_image_tokens=5,
        output_tokens=7,
        reasoning_tokens=7,
        output_image_tokens=7,
        output_audio_tokens=7,
        web_searches=3,
    )
    assert normalise(usage) == (usage, False)


def test_a_clamped_usage_is_what_is_charged() -> None:
    call = a_call(Usage(input_tokens=10, cached_input_tokens=20))

    assert quantities(call) == [("CACHED_INPUT", 10, "1.25")]


# Prices that cannot be


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: Rates({Unit.REQUEST: Decimal(-1)}), "at least 0"),
        (lambda: Rates({Unit.REQUEST: Decimal("NaN")}), "at least 0"),
        (lambda: Rates({Unit.REQUEST: Decimal(10) ** 10}), "below 10000000000"),
        (lambda: Rates({Unit.REQUEST: Decimal("1e-19")}), "at most 18 decimals"),
        (lambda: Rates(images=(DEFAULT_IMAGE, DEFAULT_IMAGE)), "same size and quality"),
        (lambda: Prices(base=Rates(), tiers=(Tier(None, Rates()), Tier(5, Rates()))), "only the last tier"),
        (lambda: Prices(base=Rates(), tiers=(Tier(5, Rates()), Tier(5, Rates()))), "bounds of tiers rise"),
        (lambda: Window(start_minute=60, end_minute=60, rates=Rates()), "holds never"),
        (lambda: Window(start_minute=0, end_minute=1441, rates=Rates()), "24:00"),
        (lambda: Window(start_minute=0, end_minute=1, rates=Rates(), weekdays=frozenset({0})), "weekdays"),
        (lambda: ServiceTier(name="flex", rates=FLAT.base), "tokens only"),
        (
            lambda: Prices(
                base=Rates({Unit.INPUT_TOKEN: Decimal("1e-18")}),
                service_tiers=(ServiceTier(name="flex", multiplier=Decimal("0.5")),),
            ),
            "more than 18 decimals",
        ),
    ],
)
def test_prices_that_cannot_be_kept_exactly_are_refused(build: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build()


def test_eighteen_decimals_are_kept_whatever_the_zeros_behind_them() -> None:
    price = Decimal("0.000000000000000001000")

    assert Rates({Unit.REQUEST: price}).by_unit[Unit.REQUEST] == price
