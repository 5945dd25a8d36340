"""Which lines a call has, and what stands on them."""

from dataclasses import dataclass, fields
from decimal import Decimal

import pytest

from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.pricing import (
    Funding,
    ImagePrice,
    Line,
    Outcome,
    OutputImages,
    PricedCall,
    Prices,
    Rates,
    Unit,
    Usage,
)
from tests.unit.ledger.pricing_builders import (
    CACHED,
    FLAT,
    PER_MILLION,
    a_call,
    costs,
    per_million,
    quantities,
)
from tollgate.ledger.v1 import usage_pb2


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    call: PricedCall
    lines: dict[str, str]
    total: str | None
    saved: str = "0"
    charged: str


EXAMPLES = [
    Example(
        name="plain",
        call=a_call(Usage(input_tokens=1000, output_tokens=200)),
        lines={"INPUT": "0.0025", "OUTPUT": "0.002"},
        total="0.0045",
        charged="0.0045",
    ),
    Example(
        name="cached",
        call=a_call(CACHED, discount=Decimal("0.20")),
        lines={"INPUT": "0.0008", "CACHED_INPUT": "0.0006", "OUTPUT": "0.0016"},
        total="0.003",
        saved="0.00075",
        charged="0.003",
    ),
    Example(
        name="own key",
        call=a_call(CACHED, discount=Decimal("0.20"), funding=Funding.OWN_KEY, payload_retained=True),
        lines={"INPUT": "0.0008", "CACHED_INPUT": "0.0006", "OUTPUT": "0.0016", "DATA_STORAGE": "0.000012"},
        total="0.003012",
        saved="0.00075",
        charged="0.000012",
    ),
    Example(
        name="cache hit of ours",
        call=a_call(CACHED, discount=Decimal("0.20"), cache_hit=True, payload_retained=True),
        lines={"DATA_STORAGE": "0.000012"},
        total="0.000012",
        charged="0.000012",
    ),
    Example(name="unpriced", call=a_call(CACHED, prices=None), lines={}, total=None, charged="0"),
    Example(
        name="everything off",
        call=a_call(CACHED, discount=Decimal("1.0")),
        lines={"INPUT": "0", "CACHED_INPUT": "0", "OUTPUT": "0"},
        total="0",
        saved="0.00375",
        charged="0",
    ),
    Example(
        name="storage of 1,500 tokens",
        call=a_call(Usage(input_tokens=1000, output_tokens=500), prices=None, payload_retained=True),
        lines={"DATA_STORAGE": "0.000015"},
        total=None,
        charged="0.000015",
    ),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_worked_examples_come_out(example: Example) -> None:
    call = example.call

    assert costs(call) == example.lines
    assert call.cost_pico == (None if example.total is None else pico_from_usd(example.total))
    assert call.unpriced == (example.total is None)
    assert usd_from_pico(call.saved_pico) == example.saved
    assert usd_from_pico(call.charged_pico) == example.charged


def test_the_numbers_of_outcomes_and_fundings_are_those_of_the_contract() -> None:
    contract: dict[str, int] = dict([*usage_pb2.Outcome.items(), *usage_pb2.Funding.items()])
    ours = {f"OUTCOME_{each.name}": each.value for each in Outcome} | {
        f"FUNDING_{each.name}": each.value for each in Funding
    }

    assert ours == {name: number for name, number in contract.items() if number}


def test_a_usage_has_the_quantities_of_the_contract() -> None:
    assert [field.name for field in fields(Usage)] == [field.name for field in usage_pb2.Usage.DESCRIPTOR.fields]


def test_a_cached_token_is_charged_on_one_line_only() -> None:
    call = a_call(CACHED)

    assert quantities(call) == [("INPUT", 400, "2.5"), ("CACHED_INPUT", 600, "1.25"), ("OUTPUT", 200, "10")]


def test_cached_tokens_without_a_price_of_their_own_cost_what_input_costs() -> None:
    call = a_call(CACHED, Prices(base=per_million(input="2", output="8")))

    assert ("CACHED_INPUT", 600, "2") in quantities(call)


CACHED_AUDIO = Usage(input_tokens=100, cached_input_tokens=50, input_audio_tokens=40, cached_input_audio_tokens=30)


@pytest.mark.parametrize(
    ("prices", "cached_lines"),
    [
        (
            {"cached_input_audio": "4", "cached_input": "3", "input_audio": "2"},
            [("CACHED_INPUT", 20, "3"), ("CACHED_INPUT", 30, "4")],
        ),
        ({"cached_input": "3", "input_audio": "2"}, [("CACHED_INPUT", 50, "3")]),
        ({"input_audio": "2"}, [("CACHED_INPUT", 20, "1"), ("CACHED_INPUT", 30, "2")]),
        ({}, [("CACHED_INPUT", 50, "1")]),
    ],
    ids=["its own price", "the cached price", "the audio price", "the input price"],
)
def test_cached_audio_costs_the_first_price_there_is(
    prices: dict[str, str], cached_lines: list[tuple[str, int, str]]
) -> None:
    call = a_call(CACHED_AUDIO, Prices(base=per_million(input="1", **prices)))

    assert [line for line in quantities(call) if line[0] == "CACHED_INPUT"] == cached_lines


WRITES = Usage(input_tokens=1000, cache_write_tokens=300, cache_write_1h_tokens=100)


@pytest.mark.parametrize(
    ("prices", "lines"),
    [
        (
            {"cache_write": "2", "cache_write_1h": "3"},
            [("INPUT", 700, "1"), ("CACHE_WRITE", 200, "2"), ("CACHE_WRITE", 100, "3")],
        ),
        ({"cache_write": "2"}, [("INPUT", 700, "1"), ("CACHE_WRITE", 300, "2")]),
        ({"cache_write_1h": "3"}, [("INPUT", 900, "1"), ("CACHE_WRITE", 100, "3")]),
        ({}, [("INPUT", 1000, "1")]),
    ],
    ids=["both prices", "one for all", "for an hour only", "none, so they stay input"],
)
def test_cache_writes_have_a_line_per_price(prices: dict[str, str], lines: list[tuple[str, int, str]]) -> None:
    call = a_call(WRITES, Prices(base=per_million(input="1", **prices)))

    assert quantities(call) == lines


def test_audio_and_images_without_prices_of_their_own_cost_what_input_costs() -> None:
    call = a_call(
        Usage(input_tokens=100, input_audio_tokens=30, input_image_tokens=20), Prices(base=per_million(input="1"))
    )

    assert quantities(call) == [("INPUT", 50, "1"), ("IMAGE_INPUT", 20, "1"), ("AUDIO_INPUT", 30, "1")]


def test_images_whose_tokens_nobody_counted_have_as_many_as_the_price_says() -> None:
    prices = Prices(base=per_million(input="1", input_image="5"), tokens_per_input_image=200)

    call = a_call(Usage(input_tokens=1000, input_images=3), prices)

    assert quantities(call) == [("INPUT", 400, "1"), ("IMAGE_INPUT", 600, "5")]


def test_a_reported_count_of_image_tokens_is_taken_before_one_from_the_price() -> None:
    prices = Prices(base=per_million(input="1", input_image="5"), tokens_per_input_image=200)

    call = a_call(Usage(input_tokens=1000, input_images=3, input_image_tokens=10), prices)

    assert quantities(call) == [("INPUT", 990, "1"), ("IMAGE_INPUT", 10, "5")]


def test_cached_images_that_were_not_counted_are_a_share_of_the_cache_rounded_half_up() -> None:
    prices = Prices(base=per_million(input="1", cached_input="0.5", input_image="5", cached_input_image="2"))

    # 5 of 10 tokens were cached, and half an image is one.
    call = a_call(Usage(input_tokens=10, cached_input_tokens=5, input_image_tokens=1), prices)

    assert quantities(call) == [("INPUT", 5, "1"), ("CACHED_INPUT", 4, "0.5"), ("CACHED_INPUT", 1, "2")]


def test_without_a_cached_image_price_nobody_guesses_how_many_cached_tokens_were_images() -> None:
    prices = Prices(base=per_million(input="1", cached_input="0.5", input_image="5"))

    call = a_call(Usage(input_tokens=10, cached_input_tokens=5, input_image_tokens=4), prices)

    assert quantities(call) == [("INPUT", 1, "1"), ("CACHED_INPUT", 5, "0.5"), ("IMAGE_INPUT", 4, "5")]


def test_no_cached_images_is_not_the_same_as_not_told() -> None:
    prices = Prices(base=per_million(input="1", cached_input="0.5", input_image="5", cached_input_image="2"))
    usage = Usage(input_tokens=10, cached_input_tokens=5, input_image_tokens=4, cached_input_image_tokens=0)

    assert ("CACHED_INPUT", 5, "0.5") in quantities(a_call(usage, prices))


def test_parts_that_do_not_fit_together_leave_no_negative_input() -> None:
    usage = Usage(input_tokens=1000, cached_input_tokens=700, input_audio_tokens=600)

    call = a_call(usage, Prices(base=per_million(input="1", cached_input="0.5", input_audio="2")))

    assert quantities(call) == [("CACHED_INPUT", 700, "0.5"), ("AUDIO_INPUT", 600, "2")]


def test_reasoning_is_output_unless_it_has_a_price_of_its_own() -> None:
    usage = Usage(output_tokens=100, reasoning_tokens=60)

    assert quantities(a_call(usage, Prices(base=per_million(output="1")))) == [("OUTPUT", 100, "1")]
    assert quantities(a_call(usage, Prices(base=per_million(output="1", reasoning="3")))) == [
        ("OUTPUT", 40, "1"),
        ("REASONING_OUTPUT", 60, "3"),
    ]


def test_generated_tokens_of_images_and_audio_cost_the_output_price_where_they_have_none() -> None:
    usage = Usage(output_tokens=100, output_image_tokens=50, output_audio_tokens=20)

    call = a_call(usage, Prices(base=per_million(output="1")))

    assert quantities(call) == [("OUTPUT", 30, "1"), ("IMAGE_OUTPUT", 50, "1"), ("AUDIO_OUTPUT", 20, "1")]


IMAGES = (
    ImagePrice("1024x1024", "hd", Decimal("0.08")),
    ImagePrice("1024x1024", "", Decimal("0.04")),
    ImagePrice("", "low", Decimal("0.01")),
)
DEFAULT_IMAGE = ImagePrice("", "", Decimal("0.05"))


@pytest.mark.parametrize(
    ("size", "quality", "images", "price"),
    [
        ("1024x1024", "hd", IMAGES, "0.08"),
        ("1024x1024", "standard", IMAGES, "0.04"),
        ("512x512", "low", IMAGES, "0.01"),
        ("4096x4096", "ultra", (*IMAGES, DEFAULT_IMAGE), "0.05"),
        ("4096x4096", "ultra", IMAGES, "0.08"),
        ("", "", (*IMAGES, DEFAULT_IMAGE), "0.05"),
    ],
    ids=["by size and quality", "by size", "by quality", "the default", "else the dearest", "not told"],
)
def test_an_image_costs_the_price_of_its_size_and_quality(
    size: str, quality: str, images: tuple[ImagePrice, ...], price: str
) -> None:
    usage = Usage(output_tokens=500, output_image_tokens=500, output_images=(OutputImages(size, quality, 2),))

    call = a_call(usage, Prices(base=Rates({Unit.OUTPUT_TOKEN: PER_MILLION}, images)))

    assert [(line.line, line.quantity, line.unit_price) for line in call.lines] == [
        (Line.IMAGE_OUTPUT, 2, Decimal(price))
    ]


def test_images_that_nobody_counted_are_charged_by_their_tokens() -> None:
    usage = Usage(output_tokens=500, output_image_tokens=500)

    call = a_call(usage, Prices(base=Rates({Unit.OUTPUT_TOKEN: PER_MILLION}, IMAGES)))

    assert quantities(call) == [("IMAGE_OUTPUT", 500, "1")]


def test_an_answered_call_pays_the_request_fee_even_where_no_usage_was_reported() -> None:
    assert costs(a_call(None, FLAT)) == {"REQUEST": "0.01"}


def test_web_searches_are_charged_each() -> None:
    assert costs(a_call(Usage(web_searches=3), FLAT)) == {"REQUEST": "0.01", "WEB_SEARCH": "0.06"}


def test_a_price_of_zero_is_a_price() -> None:
    call = a_call(Usage(input_tokens=10), Prices(base=per_million(input="0")))

    assert quantities(call) == [("INPUT", 10, "0")]
    assert call.cost_pico == 0
    assert not call.unpriced
