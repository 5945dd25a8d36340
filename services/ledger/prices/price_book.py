"""Which prices and which discount are in force. Pure: loading and publishing is the storage's work."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby, takewhile

from services.ledger.pricing import Prices

NO_DISCOUNT = Decimal(0)
# What the source of every version begins with that came from the catalogue, and of none that an operator published.
CATALOGUE_SOURCE = "genai-prices "

# Under which provider and model the prices of a model are kept; None when it knows none.
Canonical = Callable[[str, str], tuple[str, str] | None]


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """The prices of one model at one provider from `valid_from` on. Never rewritten once it is stored."""

    # Rises in the order of publication.
    version_id: int
    provider: str
    model: str
    valid_from: datetime
    # Where it comes from: `genai-prices 0.2.3`, `operator`.
    source: str
    prices: Prices

    @property
    def is_from_catalogue(self) -> bool:
        return self.source.startswith(CATALOGUE_SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """A fraction off, for whom and what it names."""

    # Rises in the order of creation.
    discount_id: int
    # None means everyone, every provider, every model.
    organization_id: str | None
    provider: str | None
    model: str | None
    # From 0 to 1; outside of that it matches nothing.
    fraction: Decimal
    valid_from: datetime
    # Exclusive. None means that it has no end.
    valid_to: datetime | None

    def holds(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to) and 0 <= self.fraction <= 1


class PriceBook:
    """All price versions and discounts of one moment. Replaced as a whole when one is published; never changed.

    What an operator publishes is not displaced by the catalogue: from the first operator's version on, only operators'
    versions count for that model. Of versions valid from the same moment, the one published last holds.

    `canonical` helps where a model is asked for by a name that has no versions, such as a dated one. It is asked only
    then, so a price published for the very name wins.
    """

    def __init__(
        self, versions: Iterable[PriceVersion], discounts: Iterable[Discount], canonical: Canonical = lambda *_: None
    ) -> None:
        self._canonical = canonical
        ordered = sorted(versions, key=lambda version: (*_key(version), version.valid_from, version.version_id))
        self._histories = {key: tuple(history) for key, history in groupby(ordered, key=_key)}
        self._timelines = {key: _Timeline(history) for key, history in self._histories.items()}
        self._discounts: dict[tuple[str | None, str | None, str | None], list[Discount]] = {}
        for discount in sorted(discounts, key=lambda discount: -discount.discount_id):
            key = (discount.organization_id, discount.provider, discount.model)
            self._discounts.setdefault(key, []).append(discount)

    def version_at(self, provider: str, model: str, start_time: datetime) -> PriceVersion | None:
        """The version in force at a moment, or None: then a call that starts there is unpriced."""
        timeline = self._timeline(provider, model)
        return None if timeline is None else timeline.at(start_time)

    def versions_during(self, provider: str, model: str, start: datetime, end: datetime) -> tuple[PriceVersion, ...]:
        """Every version that is in force at some moment from start to end, both included."""
        timeline = self._timeline(provider, model)
        return () if timeline is None else timeline.during(start, end)

    def discount_for(self, organization_id: str, provider: str, model: str, at: datetime) -> Decimal:
        """The fraction off for one call. The first level with a match decides; within a level, the newest."""
        by_target = self._discounts
        if not by_target:
            return NO_DISCOUNT
        for target in (
            (organization_id, provider, model),
            (organization_id, provider, None),
            (organization_id, None, model),
            (None, provider, model),
            (None, provider, None),
            (None, None, model),
            (None, None, None),
        ):
            for discount in by_target.get(target, ()):
                if discount.holds(at):
                    return discount.fraction
        return NO_DISCOUNT

    def history(self, provider: str, model: str) -> tuple[PriceVersion, ...]:
        """Every version of a model, by the moment it is valid from, those that never hold included."""
        return self._histories.get((provider, model), ())

    def in_force(self, at: datetime) -> Iterator[PriceVersion]:
        """The version in force of every model that has one, by provider and model."""
        versions = (timeline.at(at) for timeline in self._timelines.values())
        return (version for version in versions if version is not None)

    def least_discount(
        self, organization_id: str, provider: str, model: str, start: datetime, end: datetime
    ) -> Decimal:
        """The smallest fraction off at any moment from start to end, both included."""
        changes = {
            at for discount in self.discounts() for at in (discount.valid_from, discount.valid_to) if at is not None
        }
        moments = [start, *(at for at in changes if start < at <= end)]
        return min(self.discount_for(organization_id, provider, model, at) for at in moments)

    def discounts(self) -> list[Discount]:
        """Every discount, the newest first."""
        every = (discount for discounts in self._discounts.values() for discount in discounts)
        return sorted(every, key=lambda discount: -discount.discount_id)

    def _timeline(self, provider: str, model: str) -> "_Timeline | None":
        timeline = self._timelines.get((provider, model))
        if timeline is None:
            canonical = self._canonical(provider, model)
            timeline = None if canonical is None else self._timelines.get(canonical)
        return timeline


class _Timeline:
    """The versions of one model that hold at some time."""

    def __init__(self, history: tuple[PriceVersion, ...]) -> None:
        operators = tuple(version for version in history if not version.is_from_catalogue)
        if operators:
            first = operators[0].valid_from
            before = takewhile(lambda version: version.valid_from < first, history)
            history = (*before, *operators)
        self._versions = history
        self._starts = [version.valid_from for version in history]

    def at(self, moment: datetime) -> PriceVersion | None:
        index = bisect_right(self._starts, moment)
        return self._versions[index - 1] if index else None

    def during(self, start: datetime, end: datetime) -> tuple[PriceVersion, ...]:
        first = max(0, bisect_right(self._starts, start) - 1)
        return self._versions[first : bisect_right(self._starts, end)]


def _key(version: PriceVersion) -> tuple[str, str]:
    return version.provider, version.model
