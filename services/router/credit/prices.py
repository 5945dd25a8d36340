"""What models cost, as the ledger publishes it: for ordering providers by price, and for telling clients."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import grpc

from services.router.routing.routing import Candidate
from tollgate.ledger.v1 import price_service_pb2
from tollgate.ledger.v1.price_service_pb2 import ListPricesRequest, ListPricesResponse, PriceVersion

REFRESH_SECONDS = 60.0
RETRY_SECONDS = 2.0
_PAGE_SIZE = "500"
# Models are compared by what a token costs in an ordinary call, which has three times more input than output.
_INPUT_SHARE = 0.75

log = logging.getLogger("tollgate.prices")

ListPrices = Callable[[ListPricesRequest], Awaitable[ListPricesResponse]]


class PriceList:
    """The prices in force of what is configured, renewed every minute. Lives as long as its worker."""

    def __init__(self, list_prices: ListPrices, candidates: Iterable[Candidate]) -> None:
        self._list_prices = list_prices
        self._wanted = {(candidate.provider, candidate.model) for candidate in candidates}
        self._versions: dict[tuple[str, str], PriceVersion] = {}
        self._token_prices: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop. Until the ledger has answered, no prices are known."""
        self._task = asyncio.create_task(self._run(), name="prices")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def token_price(self, candidate: Candidate) -> float | None:
        """USD for a token of an ordinary call. None when no price is known."""
        return self._token_prices.get((candidate.provider, candidate.model))

    def version(self, candidate: Candidate) -> PriceVersion | None:
        """All prices of a model. None when none are known."""
        return self._versions.get((candidate.provider, candidate.model))

    async def refresh(self) -> None:
        """Asks the ledger. Raises AioRpcError, and keeps what was known."""
        versions = {}
        for provider in {provider for provider, _ in self._wanted}:
            request = ListPricesRequest(provider=provider, limit=_PAGE_SIZE)
            while True:
                page = await self._list_prices(request)
                versions.update({(each.provider, each.model): each for each in page.versions})
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        self._versions = {name: version for name, version in versions.items() if name in self._wanted}
        self._token_prices = {name: token_price(version) for name, version in self._versions.items()}

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            except grpc.aio.AioRpcError as error:
                log.warning("prices cannot be renewed: %s %s", error.code().name, error.details())
            await asyncio.sleep(REFRESH_SECONDS if self._versions else RETRY_SECONDS)


def token_price(version: PriceVersion) -> float:
    """USD for a token of an ordinary call. A comparison, not a bill: so a float will do."""
    prices = {each.unit: float(each.price) for each in version.prices.unit_prices if not each.size and not each.quality}
    input_price = prices.get(price_service_pb2.PRICE_UNIT_INPUT_TOKEN, 0.0)
    output_price = prices.get(price_service_pb2.PRICE_UNIT_OUTPUT_TOKEN, 0.0)
    return _INPUT_SHARE * input_price + (1 - _INPUT_SHARE) * output_price
