"""The prices that `genai-prices` publishes, as price versions.

A model is known by the package's own id for it, under the package's id of the provider: ("openai", "gpt-4o"). Dated and
other names, such as "gpt-4o-2024-08-06", are no models of their own: `canonical_model` finds whose they are, and the
price book asks it where a name has no versions.

What the package says of units that a usage does not count (seconds, pages, characters, video) and of circumstances that
a record does not tell (speed, route, kind of search) is not carried; `Catalogue.not_carried` lists it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.data import providers
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from services.ledger.prices.price_book import CATALOGUE_SOURCE, PriceVersion
from services.ledger.pricing import MINUTES_PER_DAY, PRICE_DECIMALS, Prices, Rates, ServiceTier, Tier, Unit, Window

SOURCE = f"{CATALOGUE_SOURCE}{genai_prices.__version__}"
# What the package does not date has always been so.
EPOCH = date(1970, 1, 1)

# The unit that a price of the package is for, and the power of ten of how many units.
_UNITS = {
    "input_mtok": (Unit.INPUT_TOKEN, 6),
    "cache_read_mtok": (Unit.CACHED_INPUT_TOKEN, 6),
    "cache_audio_read_mtok": (Unit.CACHED_INPUT_AUDIO_TOKEN, 6),
    "cache_image_read_mtok": (Unit.CACHED_INPUT_IMAGE_TOKEN, 6),
    "cache_write_mtok": (Unit.CACHE_WRITE_TOKEN, 6),
    "cache_write_1h_mtok": (Unit.CACHE_WRITE_1H_TOKEN, 6),
    "input_image_mtok": (Unit.INPUT_IMAGE_TOKEN, 6),
    "input_audio_mtok": (Unit.INPUT_AUDIO_TOKEN, 6),
    "output_mtok": (Unit.OUTPUT_TOKEN, 6),
    "output_reasoning_mtok": (Unit.REASONING_TOKEN, 6),
    "output_image_mtok": (Unit.OUTPUT_IMAGE_TOKEN, 6),
    "output_audio_mtok": (Unit.OUTPUT_AUDIO_TOKEN, 6),
    "requests_kcount": (Unit.REQUEST, 3),
    "web_searches_kcount": (Unit.WEB_SEARCH, 3),
}
# The package lists free models without any price.
_FREE = Rates({Unit.INPUT_TOKEN: Decimal(0), Unit.OUTPUT_TOKEN: Decimal(0)})


PackagePrices = Mapping[str, Decimal | TieredPrices]


@dataclass(frozen=True, slots=True)
class NotCarried:
    """Something the package says that no price version can say."""

    provider: str
    model: str
    what: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the installed package says. Versions are not numbered yet, and in order for each model."""

    versions: tuple[PriceVersion, ...]
    not_carried: tuple[NotCarried, ...]


class _NotCarriedError(Exception):
    """A model whose prices cannot be said at all, or not truthfully."""


def read_catalogue() -> Catalogue:
    """Reads the installed package; about 0.1 s."""
    versions: list[PriceVersion] = []
    not_carried: list[NotCarried] = []
    for provider in providers:
        for model in provider.models:
            of_model, left_out = versions_of(provider.id, model)
            versions += of_model
            not_carried += [NotCarried(provider.id, model.id, what) for what in left_out]
    return Catalogue(tuple(versions), tuple(not_carried))


def versions_of(provider: str, model: ModelInfo) -> tuple[list[PriceVersion], list[str]]:
    """The versions of one model, and what is not carried of it."""
    left_out: dict[str, None] = {}
    try:
        return _versions(provider, model, left_out), list(left_out)
    except _NotCarriedError as reason:
        return [], [*left_out, f"everything: {reason}"]


@lru_cache(maxsize=4096)
def canonical_model(provider: str, model: str) -> tuple[str, str] | None:
    """Under which provider and model the package prices what a provider calls `model`. None when it knows neither.

    The provider may be another one: Azure charges for OpenAI's models what OpenAI does.
    """
    found = next((known for known in providers if known.id == provider), None)
    info = None if found is None else found.find_model(model.lower(), all_providers=providers)
    if found is None or info is None:
        return None
    owner = next(known for known in providers if any(info is other for other in known.models))
    return owner.id, info.id


def new_versions(package: Sequence[PriceVersion], stored: Sequence[PriceVersion], now: datetime) -> list[PriceVersion]:
    """What has to be added for one model, so that from now on the package's prices hold.

    The time we hold a version for stays as it was priced: what the package says differently about it takes effect now.
    Both are in the order in which they hold.
    """
    past = [version.valid_from for version in stored if version.valid_from <= now]
    ahead = {version.valid_from for version in (*package, *stored) if version.valid_from > now}
    added = [
        version for version in package if version.valid_from <= now and (not past or version.valid_from > past[-1])
    ]
    if past and not added and _prices_at(package, now) != _prices_at(stored, now):
        ahead.add(now)
    for moment in sorted(ahead):
        announced = [version for version in stored if version.valid_from == moment]
        wanted = _version_at(package, moment)
        if wanted is not None and (not announced or announced[-1].prices != wanted.prices):
            added.append(replace(wanted, valid_from=moment))
    return added


def _version_at(versions: Iterable[PriceVersion], moment: datetime) -> PriceVersion | None:
    held = [version for version in versions if version.valid_from <= moment]
    return held[-1] if held else None


def _prices_at(versions: Iterable[PriceVersion], moment: datetime) -> Prices | None:
    version = _version_at(versions, moment)
    return None if version is None else version.prices


def _versions(provider: str, model: ModelInfo, left_out: dict[str, None]) -> list[PriceVersion]:
    """One version for each stretch of time with prices of its own."""
    conditional = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    variants = list(_service_tier_variants(model.price_variants or (), left_out))
    versions: list[PriceVersion] = []
    for start in _start_dates((*conditional, *(variant for _, variant in variants))):
        prices = _prices_on(start, conditional, variants, left_out)
        if not versions or versions[-1].prices != prices:
            valid_from = datetime.combine(start, time(), UTC)
            versions.append(PriceVersion(0, provider, model.id, valid_from, SOURCE, prices))
    return versions


def _start_dates(prices: Iterable[ConditionalPrice | PriceVariant]) -> list[date]:
    dated = {each.constraint.start_date for each in prices if isinstance(each.constraint, StartDateConstraint)}
    return sorted({EPOCH, *dated})


def _service_tier_variants(
    variants: Iterable[PriceVariant], left_out: dict[str, None]
) -> Iterator[tuple[str, PriceVariant]]:
    for variant in variants:
        if isinstance(variant.constraint, TimeOfDateConstraint):
            left_out[f"a time of day for {variant.when}"] = None
        elif variant.when == {"processing": "batch"}:
            yield "batch", variant
        elif variant.when.keys() == {"service_tier"}:
            yield variant.when["service_tier"], variant
        else:
            left_out[f"prices for {variant.when}"] = None


def _prices_on(
    day: date,
    conditional: Sequence[ConditionalPrice],
    variants: Sequence[tuple[str, PriceVariant]],
    left_out: dict[str, None],
) -> Prices:
    """The prices of a day. As in the package, the last price whose condition is met holds, else the first."""
    windows: list[tuple[TimeOfDateConstraint, PackagePrices]] = []
    standard = conditional[0]
    for each in reversed(conditional):
        if isinstance(each.constraint, TimeOfDateConstraint):
            windows.append((each.constraint, _named(each.prices)))
        elif each.constraint is None or each.constraint.start_date <= day:
            standard = each
            break
    named = _named(standard.prices)
    base, tiers = _layer(named, left_out)
    if base.is_empty:
        if named:
            raise _NotCarriedError(f"prices are for {', '.join(named)} only")
        base = _FREE
    return Prices(
        base=base,
        tiers=tiers,
        windows=tuple(_window(constraint, prices, named, left_out) for constraint, prices in windows),
        service_tiers=tuple(_service_tiers(day, variants, left_out)),
    )


def _window(
    constraint: TimeOfDateConstraint, prices: PackagePrices, standard: PackagePrices, left_out: dict[str, None]
) -> Window:
    if standard.keys() - prices.keys():
        # A window of ours replaces single prices, one of the package all of them.
        raise _NotCarriedError("a time of day that leaves out prices of the rest of the day")
    rates, tiers = _layer(prices, left_out)
    end_minute = _minute(constraint.end_time) or MINUTES_PER_DAY
    return Window(start_minute=_minute(constraint.start_time), end_minute=end_minute, rates=rates, tiers=tiers)


def _minute(moment: time) -> int:
    """The minute of the day in UTC. The package means UTC where it names no zone."""
    at = datetime.combine(EPOCH, moment)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if at.second or at.microsecond:
        raise _NotCarriedError(f"a time of day within a minute, {moment}")
    return at.hour * 60 + at.minute


def _service_tiers(
    day: date, variants: Sequence[tuple[str, PriceVariant]], left_out: dict[str, None]
) -> Iterator[ServiceTier]:
    by_name: dict[str, dict[str, Decimal | TieredPrices]] = {}
    for name, variant in variants:
        if not isinstance(variant.constraint, StartDateConstraint) or variant.constraint.start_date <= day:
            prices = by_name.setdefault(name, {})
            # As in the package, of two variants that hold the first one wins, price by price.
            prices.update({key: price for key, price in _named(variant.prices).items() if key not in prices})
    for name, named in by_name.items():
        rates, tiers = _layer(named, left_out)
        fees = [unit.name for unit in rates.by_unit if not unit.is_token]
        if fees:
            left_out[f"{', '.join(fees)} of the service tier {name}"] = None
            rates = Rates({unit: price for unit, price in rates.by_unit.items() if unit.is_token})
        if not rates.is_empty:
            yield ServiceTier(name=name, rates=rates, tiers=tiers)


def _named(prices: ModelPrice) -> PackagePrices:
    return {key: price for key, price in vars(prices).items() if price is not None}


def _layer(prices: PackagePrices, left_out: dict[str, None]) -> tuple[Rates, tuple[Tier, ...]]:
    """Rates and tiers. The package says above how many tokens a tier begins, which is where ours before it ends."""
    left_out.update(dict.fromkeys(f"the price {key}" for key in prices if key not in _UNITS))
    carried = {key: price for key, price in prices.items() if key in _UNITS}
    starts = sorted({tier.start for price in carried.values() for tier in getattr(price, "tiers", ())})
    base = _rates({key: _price_above(-1, price) for key, price in carried.items()}, left_out)
    tiered = {key: price for key, price in carried.items() if isinstance(price, TieredPrices)}
    # Up to the first start the base holds.
    tiers = [Tier(starts[0], Rates())] if starts else []
    bounds: list[int | None] = [*starts, None]
    for start, end in zip(starts, bounds[1:], strict=True):
        tiers.append(Tier(end, _rates({key: _price_above(start, price) for key, price in tiered.items()}, left_out)))
    return base, tuple(tiers)


def _price_above(tokens: int, price: Decimal | TieredPrices) -> Decimal:
    """The price of a call of just over so many input tokens."""
    if not isinstance(price, TieredPrices):
        return price
    begun = [tier.price for tier in price.tiers if tier.start <= tokens]
    return begun[-1] if begun else price.base


def _rates(prices: Mapping[str, Decimal], left_out: dict[str, None]) -> Rates:
    """Prices per one. The package has a few with traces of binary fractions, 0.18000000000000002 per million."""
    by_unit: dict[Unit, Decimal] = {}
    for key, price in prices.items():
        unit, exponent = _UNITS[key]
        by_unit[unit] = price.scaleb(-exponent)
        if by_unit[unit] != round(by_unit[unit], PRICE_DECIMALS):
            left_out[f"decimals of {key} after the {PRICE_DECIMALS}th: {price}"] = None
            by_unit[unit] = round(by_unit[unit], PRICE_DECIMALS)
    return Rates(by_unit)
