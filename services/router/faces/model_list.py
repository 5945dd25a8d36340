"""The models that a caller may use, as `GET /v1/models` lists them: in OpenAI's shape, with who offers them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.router.errors import ModelNotFoundError
from services.router.keys.key_ring import KeyRing
from services.router.routing.routing import Candidate, Mode
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse
from tollgate.ledger.v1.price_service_pb2 import PriceUnit, PriceVersion, UnitPrice

VersionOf = Callable[[Candidate], PriceVersion | None]


class ModelList:
    """Lives as long as its worker."""

    def __init__(
        self, candidates: Sequence[Candidate], auto_models: Sequence[str], key_ring: KeyRing, version_of: VersionOf
    ) -> None:
        self._offers: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            self._offers.setdefault(candidate.model, []).append(candidate)
        if auto_models:
            chosen_from = [each for model in auto_models for each in self._offers.get(model, ())]
            self._offers.setdefault("auto", chosen_from)
        self._key_ring = key_ring
        self._version_of = version_of

    def listed(self, grant: ResolveKeyResponse) -> dict[str, Any]:
        """All of them."""
        models = [self._model(name, offers) for name, offers in self._usable(grant).items()]
        return {"object": "list", "data": models}

    def one(self, grant: ResolveKeyResponse, name: str) -> dict[str, Any]:
        """One of them. Raises ModelNotFoundError for any other."""
        offers = self._usable(grant).get(name)
        if offers is None:
            raise ModelNotFoundError(name)
        return self._model(name, offers)

    def _usable(self, grant: ResolveKeyResponse) -> Mapping[str, Sequence[Candidate]]:
        """Where a project has own keys only, what these open; else everything."""
        if grant.project_mode != int(Mode.OWN_KEYS):
            return self._offers
        own_keys = self._key_ring.own_key_names(grant)
        opened = {
            name: [offer for offer in offers if offer.provider in own_keys] for name, offers in self._offers.items()
        }
        return {name: offers for name, offers in opened.items() if offers}

    def _model(self, name: str, offers: Sequence[Candidate]) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            # Nobody tells when a model was made; the shape wants a number.
            "created": 0,
            "owned_by": offers[0].provider,
            "providers": [self._offer(offer) for offer in offers],
        }

    def _offer(self, offer: Candidate) -> dict[str, Any]:
        version = self._version_of(offer)
        # Unknown is not zero: without a price there is null, and no empty list.
        prices = [_price(each) for each in version.prices.unit_prices] if version is not None else None
        return {
            "name": offer.provider,
            "model": offer.model,
            "endpoints": sorted(offer.endpoints),
            "output_tokens_max": offer.output_tokens_max,
            "prices": prices,
        }


def _price(price: UnitPrice) -> dict[str, str]:
    """USD for one, exact. Tiers and times of day are at `GET /v1/prices`."""
    told = {"unit": PriceUnit.Name(price.unit).removeprefix("PRICE_UNIT_").lower(), "price": price.price}
    return told | {name: value for name, value in (("size", price.size), ("quality", price.quality)) if value}
