"""From a usage and its prices to cost lines: who is charged for what, token by token."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from services.ledger.pricing.prices import Prices
from services.ledger.pricing.tariff import Rate, Tariff, tariff_for
from services.ledger.pricing.usage import Quantities, normalise

# USD per token kept: 0.01 USD per million.
DEFAULT_STORAGE_PRICE = Decimal("0.00000001")
# A line is a BIGINT of pico-USD: a little over nine million USD.
LINE_PICO_MAX = 2**63 - 1
_NO_DISCOUNT = Decimal(0)


class Line(IntEnum):
    """A kind of charge."""

    INPUT = 1
    CACHED_INPUT = 2
    CACHE_WRITE = 3
    IMAGE_INPUT = 4
    AUDIO_INPUT = 5
    OUTPUT = 6
    REASONING_OUTPUT = 7
    IMAGE_OUTPUT = 8
    AUDIO_OUTPUT = 9
    REQUEST = 10
    WEB_SEARCH = 11
    REJECTION = 12
    DATA_STORAGE = 13


class Outcome(IntEnum):
    """How a call ended. The numbers are those of `tollgate.ledger.v1.Outcome`."""

    SUCCESS = 1
    PROVIDER_ERROR = 2
    GATEWAY_ERROR = 3
    TIMEOUT = 4
    CLIENT_ERROR = 5
    CONTENT_REJECTED = 6
    CLIENT_GONE = 7
    REFUSED = 8
    UNKNOWN = 9


class Funding(IntEnum):
    """Who pays the provider. The numbers are those of `tollgate.ledger.v1.Funding`."""

    CREDITS = 1
    OWN_KEY = 2


# Every call is asked for these, and asking an enumeration for a member takes longer than adding up a line.
# fmt: off
(
    _INPUT, _CACHED_INPUT, _CACHE_WRITE, _IMAGE_INPUT, _AUDIO_INPUT, _OUTPUT, _REASONING_OUTPUT, _IMAGE_OUTPUT,
    _AUDIO_OUTPUT, _REQUEST, _WEB_SEARCH, _REJECTION, _DATA_STORAGE,
) = Line
# fmt: on
_CLIENT_GONE, _CONTENT_REJECTED = Outcome.CLIENT_GONE, Outcome.CONTENT_REJECTED
_CREDITS = Funding.CREDITS


class AmountTooLargeError(ValueError):
    """A line costs more than nine million USD, so the quantity or the price is wrong."""


class CostLine(NamedTuple):
    """One kind of charge on one call. `cost_pico` is quantity * unit_price * (1 - discount), rounded half to even."""

    line: Line
    quantity: int
    # USD per one.
    unit_price: Decimal
    discount: Decimal
    cost_pico: int
    # The same without the discount.
    list_cost_pico: int
    # False where the line is only shown, because the customer's own provider key paid.
    charged: bool


class PricedCall(NamedTuple):
    """What a call costs. Amounts are sums of the lines."""

    lines: tuple[CostLine, ...]
    # None while nobody can tell, because no price was in force; unknown is not zero.
    cost_pico: int | None
    # What discounts took off, list cost less cost.
    saved_pico: int
    # What the organization's credits pay: the lines that are charged. Storage of an unpriced call is among them.
    charged_pico: int
    unpriced: bool


def price_call(
    usage: Quantities | None,
    *,
    outcome: Outcome,
    funding: Funding,
    cache_hit: bool,
    payload_retained: bool,
    service_tier: str,
    start_time: datetime,
    prices: Prices | None,
    discount: Decimal,
    storage_price: Decimal = DEFAULT_STORAGE_PRICE,
    is_normalised: bool = False,
) -> PricedCall:
    """Prices one call with the version in force at its start. `usage` is None when nothing is known of it.

    `is_normalised` where the usage is known to come out of `normalise`, which would only find that again.

    Calls that failed, were refused or came from our cache cost nothing but storage, and are never unpriced. Raises
    AmountTooLargeError when a line does not fit 64 bits of pico-USD.
    """
    if usage is not None and not is_normalised:
        usage, _ = normalise(usage)
    lines: list[CostLine] = []
    unpriced = False
    if not cache_hit and _bears_inference(outcome, usage):
        unpriced = prices is None
        if prices is not None:
            tariff = tariff_for(
                prices,
                input_tokens=0 if usage is None else usage.input_tokens,
                service_tier=service_tier,
                start_time=start_time,
                discount=discount,
            )
            _add_inference(lines, usage, tariff, outcome, funding == _CREDITS)
    if payload_retained and usage is not None and outcome in _ANSWERED:
        tokens = usage.input_tokens + usage.output_tokens
        _add(lines, _DATA_STORAGE, tokens, _storage_rate(storage_price), True)
    return _summed(lines, unpriced)


# Whoever got something from a model: in full, in part, or its filter's refusal.
_ANSWERED = frozenset({Outcome.SUCCESS, Outcome.CLIENT_GONE, Outcome.CONTENT_REJECTED})


def _bears_inference(outcome: Outcome, usage: Quantities | None) -> bool:
    """Whether there is anything to price. A client that left before anything was streamed owes nothing."""
    return outcome in _ANSWERED and (usage is not None or outcome != _CLIENT_GONE)


@lru_cache(maxsize=8)
def _storage_rate(storage_price: Decimal) -> Rate:
    return Rate(storage_price, _NO_DISCOUNT)


def _summed(lines: list[CostLine], unpriced: bool) -> PricedCall:
    cost = saved = charged = 0
    # Taking a line apart is cheaper than asking it for three of its fields.
    for _, _, _, _, line_cost, line_list_cost, is_charged in lines:
        cost += line_cost
        saved += line_list_cost - line_cost
        if is_charged:
            charged += line_cost
    return tuple.__new__(PricedCall, (tuple(lines), None if unpriced else cost, saved, charged, unpriced))


def _add(lines: list[CostLine], kind: Line, quantity: int, rate: Rate | None, charged: bool) -> None:
    """Adds a line, rounding this once. Nothing of a kind, or no price for it, is no line."""
    if rate is None or quantity <= 0:
        return
    list_cost = _rounded(quantity * rate.list_numerator, rate.list_denominator)
    if list_cost > LINE_PICO_MAX:
        raise AmountTooLargeError(f"{quantity} times {rate.unit_price:f} USD is more than a line can hold")
    cost = _rounded(quantity * rate.cost_numerator, rate.cost_denominator)
    # What `CostLine(…)` does, in a third of its time.
    lines.append(tuple.__new__(CostLine, (kind, quantity, rate.unit_price, rate.discount, cost, list_cost, charged)))


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number; the even one of two that are equally near."""
    if denominator == 1:
        return numerator
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + (twice > denominator or (twice == denominator and whole % 2))


def _add_inference(
    lines: list[CostLine], usage: Quantities | None, tariff: Tariff, outcome: Outcome, charged: bool
) -> None:
    if usage is not None:
        _add_input(lines, usage, tariff, charged)
        _add_output(lines, usage, tariff, charged)
    if outcome == _CONTENT_REJECTED:
        _add(lines, _REJECTION, 1, tariff.rejection, charged)
    else:
        _add(lines, _REQUEST, 1, tariff.request, charged)
    if usage is not None:
        _add(lines, _WEB_SEARCH, usage.web_searches, tariff.web_search, charged)


def _add_input(lines: list[CostLine], usage: Quantities, tariff: Tariff, charged: bool) -> None:
    """Splits the prompt, so that each token is on one line."""
    cached, cached_audio = usage.cached_input_tokens, usage.cached_input_audio_tokens
    audio = usage.input_audio_tokens - cached_audio
    images = usage.input_image_tokens or usage.input_images * tariff.tokens_per_input_image
    cached_images = _cached_images(usage, images, tariff) if images else 0
    images -= cached_images
    write, write_1h = _written(usage, tariff) if usage.cache_write_tokens else (0, 0)

    text = usage.input_tokens - cached - write - write_1h - audio - images
    _add(lines, _INPUT, text, tariff.input_text, charged)
    if cached_audio or cached_images:
        cached_parts = (
            (cached - cached_audio - cached_images, tariff.cached_text),
            (cached_audio, tariff.cached_audio),
            (cached_images, tariff.cached_image),
        )
        _add_by_price(lines, _CACHED_INPUT, cached_parts, charged)
    else:
        _add(lines, _CACHED_INPUT, cached, tariff.cached_text, charged)
    if write_1h:
        writes = ((write, tariff.cache_write), (write_1h, tariff.cache_write_1h))
        _add_by_price(lines, _CACHE_WRITE, writes, charged)
    else:
        _add(lines, _CACHE_WRITE, write, tariff.cache_write, charged)
    _add(lines, _IMAGE_INPUT, images, tariff.input_image, charged)
    _add(lines, _AUDIO_INPUT, audio, tariff.input_audio, charged)


def _cached_images(usage: Quantities, images: int, tariff: Tariff) -> int:
    """How many cached tokens were images: as reported, else in proportion, rounded half up, where it makes a price."""
    if usage.cached_input_image_tokens is not None:
        return usage.cached_input_image_tokens
    if not tariff.splits_cached_images or not usage.input_tokens:
        return 0
    proportional = (2 * usage.cached_input_tokens * images + usage.input_tokens) // (2 * usage.input_tokens)
    return min(proportional, usage.cached_input_tokens, images)


def _written(usage: Quantities, tariff: Tariff) -> tuple[int, int]:
    """Cache writes that have a price: for five minutes, for an hour. Those without stay ordinary input."""
    hour = usage.cache_write_1h_tokens
    return (
        usage.cache_write_tokens - hour if tariff.cache_write is not None else 0,
        hour if tariff.cache_write_1h is not None else 0,
    )


def _add_output(lines: list[CostLine], usage: Quantities, tariff: Tariff, charged: bool) -> None:
    image_tokens, audio = usage.output_image_tokens, usage.output_audio_tokens
    reasoning = usage.reasoning_tokens if tariff.reasoning is not None else 0
    text = usage.output_tokens - image_tokens - audio - reasoning
    _add(lines, _OUTPUT, text, tariff.output_text, charged)
    _add(lines, _REASONING_OUTPUT, reasoning, tariff.reasoning, charged)
    generated = tuple(usage.output_images) if tariff.images else ()
    if generated:
        by_image = ((images.count, tariff.image(images.size, images.quality)) for images in generated)
        _add_by_price(lines, _IMAGE_OUTPUT, by_image, charged)
    else:
        # Also where images have a price each but nobody counted them.
        _add(lines, _IMAGE_OUTPUT, image_tokens, tariff.output_image_token, charged)
    _add(lines, _AUDIO_OUTPUT, audio, tariff.output_audio, charged)


def _add_by_price(lines: list[CostLine], kind: Line, parts: Iterable[tuple[int, Rate | None]], charged: bool) -> None:
    """One line per unit price."""
    quantities: dict[Rate | None, int] = {}
    for quantity, rate in parts:
        if quantity > 0:
            quantities[rate] = quantities.get(rate, 0) + quantity
    for rate, quantity in quantities.items():
        _add(lines, kind, quantity, rate, charged)
