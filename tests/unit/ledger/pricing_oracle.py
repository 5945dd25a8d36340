"""What a call costs, computed a second time from the billing rules, in fractions and without any cleverness.

Shares no code with `services.ledger.pricing` but the values it takes.
"""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from services.ledger.pricing import Line, Outcome, Prices, Rates, Tier, Unit, Usage

# What a line is, without its order: its kind and unit price, and how much of it, at what cost and list cost.
OracleLines = dict[tuple[Line, Fraction], tuple[int, int, int]]


class Oracle:
    """Prices one call that a model answered."""

    def __init__(self, usage: Usage, prices: Prices, service_tier: str, start_time: datetime) -> None:
        self._usage = usage
        self._prices = prices
        self._service_tier = service_tier
        self._start_time = start_time.astimezone(UTC)

    def lines(self, outcome: Outcome, discount: Decimal) -> OracleLines:
        quantities: Counter[tuple[Line, Fraction]] = Counter()
        for line, quantity, price in (*self._input(), *self._output(), *self._flat(outcome)):
            if price is not None and quantity > 0:
                quantities[line, price] += quantity
        paid = 1 - Fraction(discount)
        return {
            (line, price): (quantity, round(quantity * price * 10**12 * paid), round(quantity * price * 10**12))
            for (line, price), quantity in quantities.items()
        }

    def _input(self) -> list[tuple[Line, int, Fraction | None]]:
        u = self._usage
        whole = u.input_tokens
        cached = min(u.cached_input_tokens, whole)
        audio = min(u.input_audio_tokens, whole)
        cached_audio = min(u.cached_input_audio_tokens, audio, cached)
        images = min(u.input_image_tokens, whole)
        cached_images = u.cached_input_image_tokens
        if cached_images is not None:
            cached_images = min(cached_images, images, cached)
        if images == 0:
            images = u.input_images * (self._prices.tokens_per_input_image or 0)
        if images == 0:
            cached_images = 0
        if cached_images is None and self._price(Unit.CACHED_INPUT_IMAGE_TOKEN) is not None and whole > 0:
            share = Fraction(cached * images, whole)
            half_up = int(share + Fraction(1, 2))
            cached_images = min(half_up, cached, images)
        cached_images = cached_images or 0
        written = min(u.cache_write_tokens, whole)
        for_an_hour = min(u.cache_write_1h_tokens, written)
        for_minutes = written - for_an_hour

        minutes_price = self._price(Unit.CACHE_WRITE_TOKEN)
        hour_price = self._price(Unit.CACHE_WRITE_1H_TOKEN, Unit.CACHE_WRITE_TOKEN)
        unwritten = (0 if minutes_price is None else for_minutes) + (0 if hour_price is None else for_an_hour)
        plain = whole - cached - unwritten - (audio - cached_audio) - (images - cached_images)
        text, audios = Unit.INPUT_TOKEN, Unit.INPUT_AUDIO_TOKEN
        return [
            (Line.INPUT, plain, self._price(text)),
            (
                Line.CACHED_INPUT,
                cached - cached_audio - cached_images,
                self._price(Unit.CACHED_INPUT_TOKEN, text),
            ),
            (
                Line.CACHED_INPUT,
                cached_audio,
                self._price(Unit.CACHED_INPUT_AUDIO_TOKEN, Unit.CACHED_INPUT_TOKEN, audios, text),
            ),
            (
                Line.CACHED_INPUT,
                cached_images,
                self._price(Unit.CACHED_INPUT_IMAGE_TOKEN, Unit.CACHED_INPUT_TOKEN, Unit.INPUT_IMAGE_TOKEN, text),
            ),
            (Line.CACHE_WRITE, for_minutes, minutes_price),
            (Line.CACHE_WRITE, for_an_hour, hour_price),
            (Line.IMAGE_INPUT, images - cached_images, self._price(Unit.INPUT_IMAGE_TOKEN, text)),
            (Line.AUDIO_INPUT, audio - cached_audio, self._price(audios, text)),
        ]

    def _output(self) -> list[tuple[Line, int, Fraction | None]]:
        u = self._usage
        images = min(u.output_image_tokens, u.output_tokens)
        audio = min(u.output_audio_tokens, u.output_tokens)
        reasoning = min(u.reasoning_tokens, u.output_tokens)
        if self._price(Unit.REASONING_TOKEN) is None:
            reasoning = 0
        lines = [
            (Line.OUTPUT, u.output_tokens - images - audio - reasoning, self._price(Unit.OUTPUT_TOKEN)),
            (Line.REASONING_OUTPUT, reasoning, self._price(Unit.REASONING_TOKEN)),
            (Line.AUDIO_OUTPUT, audio, self._price(Unit.OUTPUT_AUDIO_TOKEN, Unit.OUTPUT_TOKEN)),
        ]
        by_name = self._image_prices()
        if by_name and u.output_images:
            for each in u.output_images:
                lines.append((Line.IMAGE_OUTPUT, each.count, _image_price(by_name, each.size, each.quality)))
        else:
            lines.append((Line.IMAGE_OUTPUT, images, self._price(Unit.OUTPUT_IMAGE_TOKEN, Unit.OUTPUT_TOKEN)))
        return lines

    def _flat(self, outcome: Outcome) -> list[tuple[Line, int, Fraction | None]]:
        rejected = outcome is Outcome.CONTENT_REJECTED
        fee = self._price(Unit.REJECTION if rejected else Unit.REQUEST)
        return [
            (Line.REJECTION if rejected else Line.REQUEST, 1, fee or None),
            (Line.WEB_SEARCH, self._usage.web_searches, self._price(Unit.WEB_SEARCH)),
        ]

    def _price(self, *units: Unit) -> Fraction | None:
        for unit in units:
            price = self._own_price(unit)
            if price is not None:
                return price
        return None

    def _own_price(self, unit: Unit) -> Fraction | None:
        """The most particular price: of the service tier, then of the window, then of the base; of a tier first."""
        served = [tier for tier in self._prices.service_tiers if tier.name == self._service_tier]
        for service_tier in served:
            for rates in (self._tier(service_tier.tiers), service_tier.rates):
                if unit in rates.by_unit:
                    return Fraction(rates.by_unit[unit])
        scale = Fraction(served[0].multiplier) if served and unit <= Unit.OUTPUT_AUDIO_TOKEN else Fraction(1)
        for layer in self._standard_layers():
            if unit in layer.by_unit:
                return Fraction(layer.by_unit[unit]) * scale
        return None

    def _standard_layers(self) -> list[Rates]:
        layers = [self._tier(self._prices.tiers), self._prices.base]
        minute, weekday = self._start_time.hour * 60 + self._start_time.minute, self._start_time.isoweekday()
        for window in self._prices.windows:
            minutes = range(window.start_minute, window.end_minute)
            if window.end_minute < window.start_minute:
                holds = minute >= window.start_minute or minute < window.end_minute
            else:
                holds = minute in minutes
            if holds and weekday in window.weekdays:
                return [self._tier(window.tiers), window.rates, *layers]
        return layers

    def _tier(self, tiers: tuple[Tier, ...]) -> Rates:
        for tier in tiers:
            if tier.up_to_tokens is None or tier.up_to_tokens >= self._usage.input_tokens:
                return tier.rates
        return tiers[-1].rates if tiers else Rates()

    def _image_prices(self) -> dict[tuple[str, str], Fraction]:
        for layer in self._standard_layers():
            if layer.images:
                return {(image.size, image.quality): Fraction(image.price) for image in layer.images}
        return {}


def _image_price(by_name: dict[tuple[str, str], Fraction], size: str, quality: str) -> Fraction:
    for name in ((size, quality), (size, ""), ("", quality), ("", "")):
        if name in by_name:
            return by_name[name]
    return max(by_name.values())
