"""What a call can cost at most, as routers may remember it for a while."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.ledger.prices.price_book import PriceBook
from services.ledger.pricing import PriceBound, joined, price_bound

# How long a router may go by an answer; a price that is published with immediate effect is this late at most.
VALID_SECONDS = 10
# While the ledger is away, routers go by older answers. Whatever is known to come into force until then is counted in.
AHEAD = timedelta(seconds=310)


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A model at a provider."""

    provider: str
    model: str


class PriceBounds:
    """Bounds for one organization's calls. Lives as long as the service."""

    def __init__(self, price_book: Callable[[], PriceBook], *, clock: Callable[[], datetime]) -> None:
        self._price_book = price_book
        self._clock = clock

    def bound(self, organization_id: str, model: PricedModel) -> PriceBound | None:
        """None while nobody has priced the model."""
        book, start = self._price_book(), self._clock()
        end = start + AHEAD
        versions = book.versions_during(model.provider, model.model, start, end)
        if not versions:
            return None
        discount = book.least_discount(organization_id, model.provider, model.model, start, end)
        return joined(price_bound(version.prices, discount) for version in versions)
