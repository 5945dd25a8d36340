"""Price versions and discounts, domain ↔ rows.

A version is laid out as numbered conditions, each with its prices: the base, then windows and service tiers, each
followed by its tiers.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from services.ledger.prices.price_book import Discount, PriceVersion
from services.ledger.pricing import ImagePrice, Prices, Rates, ServiceTier, Tier, Unit, Window

Values = dict[str, Any]
# By version and number of the condition. A condition without prices has no entry.
RatesByCondition = dict[tuple[int, int], Rates]


def version_to_row(version: PriceVersion, now: datetime) -> Values:
    return {
        "version_id": version.version_id,
        "provider": version.provider,
        "model": version.model,
        "valid_from": version.valid_from,
        "source": version.source,
        "tokens_per_input_image": version.prices.tokens_per_input_image,
        "create_time": now,
    }


def discount_to_row(value: Discount) -> Values:
    return {
        "organization_id": None if value.organization_id is None else UUID(value.organization_id),
        "provider": value.provider,
        "model": value.model,
        "fraction": value.fraction,
        "valid_from": value.valid_from,
        "valid_to": value.valid_to,
    }


def discount_from_row(row: Row[Any]) -> Discount:
    return Discount(
        discount_id=row.discount_id,
        organization_id=None if row.organization_id is None else str(row.organization_id),
        provider=row.provider,
        model=row.model,
        fraction=row.fraction,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
    )


def _conditions(prices: Prices) -> Iterator[tuple[Values, Rates]]:
    """Each group of prices with the columns that say when it holds, in the order of their numbers."""
    yield {}, prices.base
    yield from _tier_conditions(prices.tiers)
    for window in prices.windows:
        yield (
            {
                "window_start_minute": window.start_minute,
                "window_end_minute": window.end_minute,
                "window_weekdays": sorted(window.weekdays),
            },
            window.rates,
        )
        yield from _tier_conditions(window.tiers)
    for service_tier in prices.service_tiers:
        yield {"service_tier": service_tier.name, "multiplier": service_tier.multiplier}, service_tier.rates
        yield from _tier_conditions(service_tier.tiers)


def _tier_conditions(tiers: tuple[Tier, ...]) -> Iterator[tuple[Values, Rates]]:
    return (({"is_tier": True, "up_to_tokens": tier.up_to_tokens}, tier.rates) for tier in tiers)


_NO_RATES = Rates()
_ALWAYS: Values = {
    "is_tier": False,
    "up_to_tokens": None,
    "service_tier": None,
    "multiplier": None,
    "window_start_minute": None,
    "window_end_minute": None,
    "window_weekdays": None,
}


def condition_rows(version: PriceVersion) -> Iterator[Values]:
    for number, (condition, _) in enumerate(_conditions(version.prices)):
        yield {"version_id": version.version_id, "condition_number": number, **_ALWAYS, **condition}


def price_rows(version: PriceVersion) -> Iterator[Values]:
    for number, (_, rates) in enumerate(_conditions(version.prices)):
        key = {"version_id": version.version_id, "condition_number": number}
        for unit, amount in rates.by_unit.items():
            yield key | {"unit": int(unit), "size": "", "quality": "", "price": amount}
        for image in rates.images:
            yield key | {
                "unit": int(Unit.OUTPUT_IMAGE),
                "size": image.size,
                "quality": image.quality,
                "price": image.price,
            }


def rates_by_condition(rows: Sequence[Row[Any]]) -> RatesByCondition:
    rates: RatesByCondition = {}
    for key, group in groupby(rows, key=attrgetter("version_id", "condition_number")):
        prices = list(group)
        rates[key] = Rates(
            {Unit(row.unit): row.price for row in prices if row.unit != Unit.OUTPUT_IMAGE},
            tuple(ImagePrice(row.size, row.quality, row.price) for row in prices if row.unit == Unit.OUTPUT_IMAGE),
        )
    return rates


def version_from_row(row: Row[Any], conditions: list[Row[Any]], rates: RatesByCondition) -> PriceVersion:
    """Reads back what `_conditions` laid out; `conditions` are in the order of their numbers."""
    layers: list[tuple[Row[Any], list[Tier]]] = []
    for condition in conditions:
        if condition.is_tier:
            layers[-1][1].append(Tier(condition.up_to_tokens, _rates_of(condition, rates)))
        else:
            layers.append((condition, []))
    (base, tiers), *others = layers
    prices = Prices(
        base=_rates_of(base, rates),
        tiers=tuple(tiers),
        windows=tuple(_window(at, rates, tiers) for at, tiers in others if at.window_start_minute is not None),
        service_tiers=tuple(_service_tier(at, rates, tiers) for at, tiers in others if at.service_tier is not None),
        tokens_per_input_image=row.tokens_per_input_image,
    )
    return PriceVersion(row.version_id, row.provider, row.model, row.valid_from, row.source, prices)


def _window(condition: Row[Any], rates: RatesByCondition, tiers: list[Tier]) -> Window:
    return Window(
        start_minute=condition.window_start_minute,
        end_minute=condition.window_end_minute,
        weekdays=frozenset(condition.window_weekdays),
        rates=_rates_of(condition, rates),
        tiers=tuple(tiers),
    )


def _service_tier(condition: Row[Any], rates: RatesByCondition, tiers: list[Tier]) -> ServiceTier:
    return ServiceTier(
        name=condition.service_tier,
        multiplier=condition.multiplier,
        rates=_rates_of(condition, rates),
        tiers=tuple(tiers),
    )


def _rates_of(condition: Row[Any], rates: RatesByCondition) -> Rates:
    return rates.get((condition.version_id, condition.condition_number), _NO_RATES)
