"""Everything one price version can say, as a frozen value that cannot be wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ledger.pricing.tariff import Tariff

PRICE_DECIMALS = 18
ATTO: int = 10**PRICE_DECIMALS
# NUMERIC(28,18) holds ten digits before the point.
PRICE_LIMIT = Decimal(10) ** 10
MINUTES_PER_DAY = 24 * 60
# Weekdays as ISO counts them: 1 is Monday, 7 Sunday.
EVERY_DAY = frozenset(range(1, 8))


class Unit(IntEnum):
    """What a price is for one of. The numbers are those of `tollgate.ledger.v1.PriceUnit`."""

    INPUT_TOKEN = 1
    CACHED_INPUT_TOKEN = 2
    CACHED_INPUT_AUDIO_TOKEN = 3
    CACHED_INPUT_IMAGE_TOKEN = 4
    CACHE_WRITE_TOKEN = 5
    CACHE_WRITE_1H_TOKEN = 6
    INPUT_IMAGE_TOKEN = 7
    INPUT_AUDIO_TOKEN = 8
    OUTPUT_TOKEN = 9
    REASONING_TOKEN = 10
    OUTPUT_IMAGE_TOKEN = 11
    OUTPUT_AUDIO_TOKEN = 12
    OUTPUT_IMAGE = 13
    REQUEST = 14
    WEB_SEARCH = 15
    REJECTION = 16

    @property
    def is_token(self) -> bool:
        """True for what a service tier scales; flat fees and whole images are not scaled."""
        return self <= Unit.OUTPUT_AUDIO_TOKEN


@dataclass(frozen=True, slots=True)
class ImagePrice:
    """The price of one generated image. Empty `size` or `quality` means any; both empty is the default."""

    size: str
    quality: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in USD per one unit. A unit that is absent has no price here; 0 is a price."""

    by_unit: Mapping[Unit, Decimal] = field(default_factory=dict)
    # Every price of `Unit.OUTPUT_IMAGE`; they are replaced as a whole where another `Rates` names any.
    images: tuple[ImagePrice, ...] = ()

    def __post_init__(self) -> None:
        if Unit.OUTPUT_IMAGE in self.by_unit:
            raise ValueError("prices per image are given by size and quality")
        for price in self:
            check_decimal(price, below=PRICE_LIMIT)
        if len({(image.size, image.quality) for image in self.images}) < len(self.images):
            raise ValueError("two prices for images of the same size and quality")

    def __iter__(self) -> Iterator[Decimal]:
        """Every price, whatever it is for."""
        yield from self.by_unit.values()
        for image in self.images:
            yield image.price

    @property
    def is_empty(self) -> bool:
        return not self.by_unit and not self.images

    def overlaid_with(self, other: "Rates") -> "Rates":
        """These rates, replaced by the others wherever those say something."""
        if other.is_empty:
            return self
        return Rates({**self.by_unit, **other.by_unit}, other.images or self.images)

    def scaled(self, multiplier: Decimal) -> "Rates":
        """Token prices times the multiplier; everything else as it is."""
        if multiplier == 1:
            return self
        scaled = {
            unit: decimal_from_atto(atto_of(price) * atto_of(multiplier) // ATTO) if unit.is_token else price
            for unit, price in self.by_unit.items()
        }
        return Rates(scaled, self.images)


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates of calls whose whole input has at most `up_to_tokens`. None has no bound; only the last may have none."""

    up_to_tokens: int | None
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Rates of calls that start at a time of day, in UTC.

    From `start_minute` (0 to 1,439, inclusive) until `end_minute` (1 to 1,440, exclusive); past midnight when the end
    is before the start. Holds on the days of `weekdays`, each from midnight to midnight.
    """

    start_minute: int
    end_minute: int
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    weekdays: frozenset[int] = EVERY_DAY

    def __post_init__(self) -> None:
        if not 0 <= self.start_minute < MINUTES_PER_DAY or not 0 < self.end_minute <= MINUTES_PER_DAY:
            raise ValueError("a window starts from 00:00 to 23:59 and ends from 00:01 to 24:00")
        if self.start_minute == self.end_minute:
            raise ValueError("a window that ends when it starts holds never; for the whole day it ends at 24:00")
        if not self.weekdays or not self.weekdays <= EVERY_DAY:
            raise ValueError("a window names weekdays from 1 to 7, at least one")
        check_tiers(self.tiers)

    def holds(self, minute_of_day: int, weekday: int) -> bool:
        if weekday not in self.weekdays:
            return False
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute_of_day < self.end_minute
        return minute_of_day >= self.start_minute or minute_of_day < self.end_minute


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTier:
    """How the tier a provider served changes token prices: scaled, and replaced where it has rates of its own."""

    name: str
    multiplier: Decimal = Decimal(1)
    rates: Rates = field(default_factory=Rates)
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a service tier has a name")
        check_decimal(self.multiplier, below=PRICE_LIMIT)
        check_tiers(self.tiers)
        for rates in (self.rates, *(tier.rates for tier in self.tiers)):
            if rates.images or not all(unit.is_token for unit in rates.by_unit):
                raise ValueError("a service tier changes prices of tokens only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """All prices of one model at one provider, from a moment on.

    Later layers replace what earlier ones say: the base, its tier, the first window that holds, its tier, then the
    service tier and its tier. A quantity whose unit has no price, fallbacks included, costs nothing.
    """

    base: Rates
    tiers: tuple[Tier, ...] = ()
    windows: tuple[Window, ...] = ()
    service_tiers: tuple[ServiceTier, ...] = ()
    # Stands in where a provider counts images of the prompt but not their tokens. None means that it never does.
    tokens_per_input_image: int | None = None
    # Every finite bound of any layer, rising.
    bounds: tuple[int, ...] = field(init=False, repr=False, compare=False)
    # What pricing derives from these prices, by circumstances; filled and bounded by `tariff.tariff_for`.
    tariffs: "dict[tuple[int, str, int | None, Decimal], Tariff]" = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_tiers(self.tiers)
        layers: tuple[Prices | Window | ServiceTier, ...] = (self, *self.windows, *self.service_tiers)
        tiers = [tier for layer in layers for tier in layer.tiers]
        bounds = {tier.up_to_tokens for tier in tiers if tier.up_to_tokens is not None}
        object.__setattr__(self, "bounds", tuple(sorted(bounds)))
        if self.tokens_per_input_image is not None and self.tokens_per_input_image < 1:
            raise ValueError("an image has at least one token")
        names = [tier.name for tier in self.service_tiers]
        if len(set(names)) < len(names):
            raise ValueError("two service tiers of the same name")
        self._check_multipliers()

    def _check_multipliers(self) -> None:
        scaled = [self.base, *(tier.rates for tier in self.tiers)]
        for window in self.windows:
            scaled += [window.rates, *(tier.rates for tier in window.tiers)]
        for tier in self.service_tiers:
            multiplier = atto_of(tier.multiplier)
            for rates in scaled:
                for unit, price in rates.by_unit.items():
                    if unit.is_token and atto_of(price) * multiplier % ATTO:
                        raise ValueError(
                            f"{price} times the multiplier {tier.multiplier} has more than {PRICE_DECIMALS} decimals"
                        )


def check_tiers(tiers: tuple[Tier, ...]) -> None:
    """Raises ValueError unless bounds rise, are not negative, and only the last is open."""
    bounds = [tier.up_to_tokens for tier in tiers]
    finite = [bound for bound in bounds if bound is not None]
    if None in bounds[:-1]:
        raise ValueError("only the last tier may have no bound")
    if finite != sorted(set(finite)) or any(bound < 0 for bound in finite):
        raise ValueError("the bounds of tiers rise from 0")


def check_decimal(value: Decimal, *, below: Decimal) -> None:
    """Raises ValueError unless the value is from 0 up to `below`, exactly, in 18 decimals."""
    if not value.is_finite() or value < 0 or value >= below:
        raise ValueError(f"must be at least 0 and below {below:f}, got {value}")
    _, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and exponent < -PRICE_DECIMALS and any(digits[PRICE_DECIMALS + exponent :]):
        raise ValueError(f"must have at most {PRICE_DECIMALS} decimals, got {value}")


def atto_of(value: Decimal) -> int:
    """The value times 10^18, exactly. `check_decimal` makes sure that it is whole."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * ATTO // denominator


def decimal_from_atto(atto: int) -> Decimal:
    """The exact opposite of `atto_of`, whatever the precision of the decimal context."""
    whole, fraction = divmod(atto, ATTO)
    return Decimal(f"{whole}.{fraction:018d}".rstrip("0").rstrip("."))
