"""Changes to prices and discounts, and the price book that every ledger keeps in step with them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError, NotFoundError, UnavailableError
from services.ledger.accounts.audit import AuditEntry, Settings, audit_entry, in_words
from services.ledger.prices.catalogue import canonical_model
from services.ledger.prices.price_book import Discount, PriceBook, PriceVersion
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.accounts.audit import AuditStore
from services.ledger.storage.prices.prices import PriceStore
from services.ledger.storage.transactions import transaction

# How old a price book may be that prices are taken from.
REFRESH_SECONDS = 1.0

log = logging.getLogger("tollgate.prices")


class CurrentPrices:
    """The price book as it is now, within a second. Lives as long as the service.

    `refresh` once before the first use; `follow` then runs beside everything else.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database
        self._revision = -1
        self._book = PriceBook((), (), canonical_model)
        self._refreshing = asyncio.Lock()

    @property
    def book(self) -> PriceBook:
        """Never changes under its user: the next revision is another book."""
        return self._book

    async def refresh(self) -> None:
        """Reads the book again if anything was published. Raises UnavailableError when the database is away."""
        async with self._refreshing, transaction(self._database) as connection:
            store = PriceStore(connection)
            revision = await store.revision()
            if revision == self._revision:
                return
            # A change between these reads has a higher revision and is read again next time.
            book = PriceBook(await store.versions(), await store.discounts(), canonical_model)
        self._book, self._revision = book, revision

    async def follow(self) -> None:
        """Refreshes for ever. While the database is away, the last book stays in use."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except UnavailableError as error:
                log.warning("prices stay as they were: %s", error.message)


class PriceKeeper:
    """Publishes prices and gives discounts on behalf of a caller. Lives as long as the service."""

    def __init__(
        self,
        database: AsyncEngine,
        current: CurrentPrices,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._current = current
        self._clock = clock
        self._new_id = new_id

    async def publish(self, caller: Caller, draft: PriceVersion) -> PriceVersion:
        """Stores a version. Repeating the one that was published last for its moment changes nothing."""
        async with transaction(self._database) as connection:
            store = PriceStore(connection)
            await store.lock()
            latest = await store.latest_version(draft.provider, draft.model, draft.valid_from, draft.source)
            if latest is not None and latest.prices == draft.prices:
                return latest
            (version,) = await store.add_versions([draft], self._clock())
            after: Settings = {
                "provider": version.provider,
                "model": version.model,
                "valid_from": in_words(version.valid_from),
            }
            entry = self._entry(caller, "price.publish", version.version_id, None, after=after)
            await AuditStore(connection).add(entry)
        await self._current.refresh()
        return version

    async def set_discount(self, caller: Caller, draft: Discount) -> Discount:
        """Gives a discount. Repeating the newest for its target changes nothing.

        Raises NotFoundError for an unknown organization.
        """
        organization_id = _uuid_of(draft)
        async with transaction(self._database) as connection:
            if organization_id is not None and not await AccountStore(connection).has_organization(organization_id):
                raise NotFoundError(f"organization {organization_id}")
            store = PriceStore(connection)
            await store.lock()
            newest = await store.newest_discount(draft.organization_id, draft.provider, draft.model)
            if newest is not None and replace(newest, discount_id=draft.discount_id) == draft:
                return newest
            discount = await store.add_discount(draft, self._clock())
            after: Settings = {
                "provider": discount.provider,
                "model": discount.model,
                "fraction": f"{discount.fraction.normalize():f}",
                "valid_from": in_words(discount.valid_from),
                "valid_to": in_words(discount.valid_to),
            }
            entry = self._entry(caller, "discount.set", discount.discount_id, organization_id, after=after)
            await AuditStore(connection).add(entry)
        await self._current.refresh()
        return discount

    async def end_discount(self, caller: Caller, discount_id: int, valid_to: datetime | None) -> Discount:
        """Ends a discount, now unless a later moment is given. One that has ended before stays as it is.

        Raises NotFoundError for an unknown one, InvalidRequestError for an end in the past: calls were priced with it.
        """
        async with transaction(self._database) as connection:
            store = PriceStore(connection)
            await store.lock()
            discount = await store.find_discount(discount_id)
            if discount is None:
                raise NotFoundError(f"discount {discount_id}")
            now = self._clock()
            if valid_to is not None and valid_to < now:
                raise InvalidRequestError("valid_to", "must not be in the past")
            if discount.valid_to is not None and discount.valid_to <= now:
                return discount
            # One that has not begun ends as it begins, and never holds.
            ended = await store.end_discount(discount_id, max(valid_to or now, discount.valid_from))
            entry = self._entry(
                caller,
                "discount.end",
                discount_id,
                _uuid_of(ended),
                before={"valid_to": in_words(discount.valid_to)},
                after={"valid_to": in_words(ended.valid_to)},
            )
            await AuditStore(connection).add(entry)
        await self._current.refresh()
        return ended

    def _entry(
        self,
        caller: Caller,
        action: str,
        number: int,
        organization_id: UUID | None,
        *,
        before: Settings | None = None,
        after: Settings,
    ) -> AuditEntry:
        return audit_entry(
            caller,
            action,
            str(number),
            audit_id=self._new_id(),
            create_time=self._clock(),
            organization_id=organization_id,
            before=before,
            after=after,
        )


def _uuid_of(discount: Discount) -> UUID | None:
    """Whose it is. None when it is for everyone."""
    return None if discount.organization_id is None else UUID(discount.organization_id)
