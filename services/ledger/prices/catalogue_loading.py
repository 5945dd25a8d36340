"""Brings the price catalogue into the price book when the ledger starts."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from sqlalchemy.ext.asyncio import AsyncEngine

from services.ledger.prices.catalogue import SOURCE, Catalogue, new_versions, read_catalogue
from services.ledger.prices.price_book import PriceVersion
from services.ledger.storage.prices.prices import PriceStore
from services.ledger.storage.transactions import transaction

log = logging.getLogger("tollgate.catalogue")

_MODEL = attrgetter("provider", "model")


def _now() -> datetime:
    return datetime.now(UTC)


async def load_catalogue(
    database: AsyncEngine,
    *,
    source: str = SOURCE,
    read: Callable[[], Catalogue] = read_catalogue,
    clock: Callable[[], datetime] = _now,
) -> int:
    """Adds what the installed edition says that is not in the price book yet, and returns how many versions that were.

    Each edition is loaded once, by whichever ledger is first; afterwards this is a single query. Versions that are
    there already are never touched, and neither is what operators published.
    """
    async with transaction(database) as connection:
        if await PriceStore(connection).has_catalogue(source):
            return 0
    catalogue = read()
    async with transaction(database) as connection:
        store = PriceStore(connection)
        await store.lock()
        if await store.has_catalogue(source):
            return 0
        now = clock()
        added = _added(catalogue, await store.versions(), now)
        await store.add_versions(added, now)
        await store.add_catalogue(source, now)
    for left_out in catalogue.not_carried:
        log.debug("not carried: %s %s: %s", left_out.provider, left_out.model, left_out.what)
    log.info("%s: %d price versions added, %d things not carried", source, len(added), len(catalogue.not_carried))
    return len(added)


def _added(catalogue: Catalogue, stored: list[PriceVersion], now: datetime) -> list[PriceVersion]:
    ours = [version for version in stored if version.is_from_catalogue]
    ours.sort(key=lambda version: (version.provider, version.model, version.valid_from, version.version_id))
    by_model = {model: list(versions) for model, versions in groupby(ours, key=_MODEL)}
    return [
        version
        for model, package in groupby(catalogue.versions, key=_MODEL)
        for version in new_versions(list(package), by_model.get(model, ()), now)
    ]
