"""Calls that had no price are priced once one is published: lines, figures, money and books, as if it had been there.

Every ledger does this. A record that one of them is pricing is locked, so the others pass it by.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from psycopg import Connection

from services.common.errors import UnavailableError
from services.common.uuid7 import new_uuid7
from services.ledger.books.journal import Balances, EntryKind, charge
from services.ledger.metrics import PRICED_LATER
from services.ledger.prices.price_book import PriceBook
from services.ledger.pricing import AmountTooLargeError
from services.ledger.storage.books import books, leases
from services.ledger.storage.usage import daily, repricing, usage
from services.ledger.storage.usage.repricing import UnpricedPlace
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.daily import charges_in, money_by_day, records_by_day
from services.ledger.usage.recording import priced
from services.ledger.usage.records import PricedRecord
from services.ledger.usage.rollups import HourKey, add_up, by_hour, spent_by_keys

# What is published is noticed as soon as prices are.
LOOK_SECONDS = 1.0
# A ledger whose prices were a second old may have recorded something without one after the others had looked.
PASS_SECONDS = 60.0
PLACES_AT_ONCE = 500

_FIRST = UUID(int=0)
_Key = TypeVar("_Key")
log = logging.getLogger("tollgate.ledger.late_pricing")


class LatePricer:
    """Prices what could not be priced when it came. Lives as long as the service."""

    def __init__(
        self, writer: DatabaseWriter, price_book: Callable[[], PriceBook], *, clock: Callable[[], datetime]
    ) -> None:
        self._writer = writer
        self._price_book = price_book
        self._clock = clock

    async def follow(self) -> None:
        """Makes a pass whenever prices change, and every minute, for ever."""
        seen: PriceBook | None = None
        waited_seconds = 0.0
        while True:
            book = self._price_book()
            if book is not seen or waited_seconds >= PASS_SECONDS:
                seen, waited_seconds = book, 0.0
                try:
                    await self.make_pass()
                except UnavailableError as error:
                    log.warning("late pricing waits for the database: %s", error.message)
            await asyncio.sleep(LOOK_SECONDS)
            waited_seconds += LOOK_SECONDS

    async def make_pass(self) -> int:
        """Looks at every record without a price, some at a time; returns how many got one."""
        book = self._price_book()
        after, count = _FIRST, 0
        while places := await self._find(after):
            count += await self._price([place for place in places if _has_price(book, place)], book)
            after = UUID(places[-1].request_id)
        if count:
            log.info("calls were priced later", extra={"count": count})
        return count

    async def _find(self, after: UUID) -> list[UnpricedPlace]:
        now = self._clock()
        return await self._writer.run(
            lambda connection: repricing.find_unpriced(connection, after, PLACES_AT_ONCE, now)
        )

    async def _price(self, places: Sequence[UnpricedPlace], book: PriceBook) -> int:
        if not places:
            return 0
        now = self._clock()
        count = await self._writer.run(lambda connection: price_places(connection, places, book, now))
        PRICED_LATER.inc(count)
        return count


def price_places(connection: Connection, places: Sequence[UnpricedPlace], book: PriceBook, now: datetime) -> int:
    """Prices records in one transaction, each once; returns how many."""
    with connection.transaction():
        found = repricing.lock_unpriced(connection, places)
        hours = repricing.lock_hours(connection, sorted(by_hour(found)))
        pairs = [
            (before, after)
            for before in found
            # An hour that has expired meanwhile takes its records with it.
            if _hour_of(before) in hours and (after := _priced(before, book)) is not None
        ]
        if pairs:
            _write(connection, [before for before, _ in pairs], [after for _, after in pairs], now)
        return len(pairs)


def _write(connection: Connection, before: list[PricedRecord], after: list[PricedRecord], now: datetime) -> None:
    repricing.write_lines(connection, after)
    groups_before, groups_after = by_hour(before), by_hour(after)
    hours = _added(add_up(groups_before), add_up(groups_after))
    usage.add_figures(connection, hours)
    daily.add_records(connection, records_by_day(hours))
    leases.add_spending(connection, spent_by_keys(hours))
    money = _added(money_by_day(groups_before), money_by_day(groups_after))
    daily.add_money(connection, money)
    charges = charges_in(money)
    batch_id = new_uuid7()

    def entry(organization_id: str, balances: Balances) -> books.Entry:
        return books.Entry(EntryKind.PRICING, str(batch_id), charge(charges[organization_id], balances))

    books.post(connection, charges, now, entry)


def _has_price(book: PriceBook, place: UnpricedPlace) -> bool:
    return book.version_at(place.provider, place.model, place.start_time) is not None


def _hour_of(record: PricedRecord) -> HourKey:
    (key,) = by_hour([record])
    return key


def _priced(before: PricedRecord, book: PriceBook) -> PricedRecord | None:
    try:
        after = priced(before.record, book)
    except AmountTooLargeError as error:
        log.error("a call cannot be priced: %s", error, extra={"request_id": before.record.request_id})
        return None
    return None if after.priced.unpriced else after


def _added(before: Mapping[_Key, list[int]], after: Mapping[_Key, list[int]]) -> dict[_Key, list[int]]:
    """What has to be added to the sums of one to have those of the other; what stays as it is is left out."""
    added: dict[_Key, list[int]] = {}
    for key, sums in after.items():
        earlier = before.get(key) or [0] * len(sums)
        more = [new - old for new, old in zip(sums, earlier, strict=True)]
        if any(more):
            added[key] = more
    return added
