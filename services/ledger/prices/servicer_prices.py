"""Speaks the wire for the price book."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import NotFoundError
from services.common.grpc_calls import current_caller
from services.common.parameters import optional_time, optional_uuid
from services.ledger.convert_values import time_from_proto, time_to_proto
from services.ledger.paging import BY_ID, Page, PageRequest, page_request
from services.ledger.prices.convert_discounts import discount_to_proto, new_discount_from_proto
from services.ledger.prices.convert_preview import preview_from_proto, preview_to_proto
from services.ledger.prices.convert_prices import new_version_from_proto, version_to_proto
from services.ledger.prices.price_book import Discount, PriceVersion
from services.ledger.prices.price_keeping import CurrentPrices, PriceKeeper
from services.ledger.storage.transactions import transaction
from services.ledger.storage.usage.unpriced import UnpricedFilter, UnpricedRecord, unpriced_records
from tollgate.ledger.v1 import price_service_pb2 as wire
from tollgate.ledger.v1.price_service_pb2_grpc import PriceServiceServicer

ID_MAX = 2**63 - 1

Item = TypeVar("Item")


class PriceServicer(PriceServiceServicer):
    """`PriceService`."""

    def __init__(
        self, database: AsyncEngine, keeper: PriceKeeper, current: CurrentPrices, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._current = current
        self._clock = clock

    async def PublishPrice(self, request: wire.PublishPriceRequest, context: Any) -> wire.PublishPriceResponse:
        version = await self._keeper.publish(current_caller(), new_version_from_proto(request))
        return wire.PublishPriceResponse(version=version_to_proto(version))

    async def ListPrices(self, request: wire.ListPricesRequest, context: Any) -> wire.ListPricesResponse:
        asked = _page_request(request.limit, request.page_token, request.provider, request.model, request.at)
        at = optional_time("at", request.at) or self._clock()
        wanted = [
            version
            for version in self._current.book.in_force(at)
            if request.provider in ("", version.provider) and request.model in ("", version.model)
        ]
        page = _page(asked, wanted, _model_key)
        return wire.ListPricesResponse(versions=map(version_to_proto, page.items), next_page_token=page.next_page_token)

    async def GetPriceHistory(self, request: wire.GetPriceHistoryRequest, context: Any) -> wire.GetPriceHistoryResponse:
        asked = _page_request(request.limit, request.page_token, request.provider, request.model)
        history = self._current.book.history(request.provider, request.model)
        if not history:
            raise NotFoundError(f"price of {request.provider}/{request.model}")
        page = _page(asked, history, _history_key)
        return wire.GetPriceHistoryResponse(
            versions=map(version_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def PreviewCost(self, request: wire.PreviewCostRequest, context: Any) -> wire.PreviewCostResponse:
        return preview_to_proto(preview_from_proto(request, self._clock()), self._current.book)

    async def ListUnpricedRecords(
        self, request: wire.ListUnpricedRecordsRequest, context: Any
    ) -> wire.ListUnpricedRecordsResponse:
        wanted = UnpricedFilter(
            organization_id=optional_uuid("organization_id", request.organization_id),
            provider=request.provider or None,
            model=request.model or None,
        )
        asked = page_request(BY_ID, limit=request.limit, page_token=request.page_token, filters=[wanted])
        async with transaction(self._database) as connection:
            records = await unpriced_records(
                connection, wanted, after=asked.after, limit=asked.row_count, now=self._clock()
            )
        page = asked.page(records, lambda record: record.request_id)
        return wire.ListUnpricedRecordsResponse(
            records=map(_unpriced_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def SetDiscount(self, request: wire.SetDiscountRequest, context: Any) -> wire.SetDiscountResponse:
        draft = new_discount_from_proto(request, self._clock())
        discount = await self._keeper.set_discount(current_caller(), draft)
        return wire.SetDiscountResponse(discount=discount_to_proto(discount))

    async def ListDiscounts(self, request: wire.ListDiscountsRequest, context: Any) -> wire.ListDiscountsResponse:
        asked = _page_request(request.limit, request.page_token, request.organization_id)
        wanted = [
            discount
            for discount in self._current.book.discounts()
            if request.organization_id in ("", discount.organization_id)
        ]
        page = _page(asked, wanted, _newest_first_key)
        return wire.ListDiscountsResponse(
            discounts=map(discount_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def EndDiscount(self, request: wire.EndDiscountRequest, context: Any) -> wire.EndDiscountResponse:
        valid_to = time_from_proto("valid_to", request.valid_to) if request.HasField("valid_to") else None
        discount_id = _discount_id(request.discount_id)
        discount = await self._keeper.end_discount(current_caller(), discount_id, valid_to)
        return wire.EndDiscountResponse(discount=discount_to_proto(discount))


class _ByKey:
    """The place of an item in a list that is sorted by a text made from it."""

    def print(self, place: str) -> str:
        return place

    def parse(self, text: str) -> str:
        return text


def _page_request(limit: str, page_token: str, *filters: str) -> PageRequest[str]:
    return page_request(_ByKey(), limit=limit, page_token=page_token, filters=filters)


def _page(asked: PageRequest[str], items: Sequence[Item], key: Callable[[Item], str]) -> Page[Item]:
    """The page that was asked for of a list whose keys rise."""
    after = asked.after
    rest = items if after is None else [item for item in items if key(item) > after]
    return asked.page(rest, key)


def _model_key(version: PriceVersion) -> str:
    # Names hold nothing that sorts before a line's end, so the key sorts as the pair does.
    return f"{version.provider}\n{version.model}"


def _history_key(version: PriceVersion) -> str:
    return f"{version.valid_from.isoformat(timespec='microseconds')} {version.version_id:020d}"


def _newest_first_key(discount: Discount) -> str:
    return f"{ID_MAX - discount.discount_id:020d}"


def _discount_id(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= ID_MAX:
        # An id in a path: one that cannot exist is as absent as one that does not.
        raise NotFoundError(f"discount {text[:50]}")
    return int(text)


def _unpriced_to_proto(record: UnpricedRecord) -> wire.UnpricedRecord:
    return wire.UnpricedRecord(
        request_id=str(record.request_id),
        organization_id=str(record.organization_id),
        project_id=record.project_id,
        provider=record.provider,
        model=record.model,
        start_time=time_to_proto(record.start_time),
    )
