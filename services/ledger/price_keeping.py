"""Changes to prices and discounts, and the price book that every ledger keeps in step with them."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError, NotFoundError, UnavailableError
from services.ledger.catalogue import canonical_model
from services.ledger.price_book import Discount, PriceBook, PriceVersion
from services.ledger.storage.accounts import AccountStore, AuditEntry
from services.ledger.storage.prices import PriceStore
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
            entry = self._entry(
                caller,
                "price.publish",
                str(version.version_id),
                provider=version.provider,
                model=version.model,
                valid_from=version.valid_from.isoformat(),
            )
            await AccountStore(connection).log(entry, None)
        await self._current.refresh()
        return version

    async def set_discount(self, caller: Caller, draft: Discount) -> Discount:
        """Gives a discount. Raises NotFoundError for an unknown organization."""
        organization_id = None if draft.organization_id is None else UUID(draft.organization_id)
        async with transaction(self._database) as connection:
            accounts = AccountStore(connection)
            if organization_id is not None and not await accounts.has_organization(organization_id):
                raise NotFoundError(f"organization {organization_id}")
            store = PriceStore(connection)
            await store.lock()
            discount = await store.add_discount(draft, self._clock())
            entry = self._entry(
                caller,
                "discount.set",
                str(discount.discount_id),
                provider=discount.provider,
                model=discount.model,
                fraction=f"{discount.fraction:f}",
                valid_from=discount.valid_from.isoformat(),
                valid_to=None if discount.valid_to is None else discount.valid_to.isoformat(),
            )
            await accounts.log(entry, organization_id)
        await self._current.refresh()
        return discount

    async def end_discount(self, caller: Caller, discount_id: int, end_time: datetime | None) -> Discount:
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
            if end_time is not None and end_time < now:
                raise InvalidRequestError("end_time", "must not be in the past")
            if discount.valid_to is not None and discount.valid_to <= now:
                return discount
            # One that has not begun ends as it begins, and never holds.
            ended = await store.end_discount(discount_id, max(end_time or now, discount.valid_from))
            organization_id = None if ended.organization_id is None else UUID(ended.organization_id)
            entry = self._entry(caller, "discount.end", str(discount_id), valid_to=str(ended.valid_to))
            await AccountStore(connection).log(entry, organization_id)
        await self._current.refresh()
        return ended

    def _entry(self, caller: Caller, action: str, subject: str, **details: str | int | bool | None) -> AuditEntry:
        return AuditEntry(
            audit_id=self._new_id(),
            create_time=self._clock(),
            actor_scope=caller.scope,
            actor_api_key_id=None if caller.api_key_id is None else UUID(caller.api_key_id),
            action=action,
            subject=subject,
            details=details,
        )
