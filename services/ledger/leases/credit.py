"""Leases credit to routers. What is promised is in `services.ledger.leases.leases`; here it is carried out."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import Connection

from services.common.errors import InvalidRequestError, NotFoundError, UnavailableError
from services.common.money import PICO_PER_USD, usd_from_pico
from services.ledger.accounts.accounts import organization_uuid
from services.ledger.leases.leases import LEASE_SECONDS, Budget, Decision, LeaseOutcome, Means, Wish, decide
from services.ledger.metrics import LAPSED_LEASES, LEASES, OVERDUE_LEASES, OVERDUE_USD
from services.ledger.storage.books import books, leases
from services.ledger.storage.books.leases import Lapsed, LeaseState, NewLease, Returned
from services.ledger.storage.writer import DatabaseWriter

# How often to look for leases whose time is long over.
PASS_SECONDS = 10.0
# A lease that holds nothing is of use to nobody but whoever wonders what happened.
KEPT = timedelta(days=1)
AT_ONCE_MAX = 100
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)

log = logging.getLogger("tollgate.ledger.credit")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWish:
    """A lease that a router asks for."""

    organization_id: str
    lease_id: str
    # None for keys without a spending limit.
    api_key_id: str | None
    producer_id: str
    epoch: int
    wish: Wish
    returns: Sequence[Returned]

    def __post_init__(self) -> None:
        require_uuid("lease_id", self.lease_id)
        require_uuid("producer_id", self.producer_id)
        organization_uuid(self.organization_id)
        if self.api_key_id is not None:
            require_uuid("api_key_id", self.api_key_id)
        if self.epoch < 1:
            raise InvalidRequestError("epoch", "must be at least 1")
        if self.wish.needed_pico < 1:
            raise InvalidRequestError("needed", "must be above 0")


class Credit:
    """Leases, and what leases hold. Lives as long as the service."""

    def __init__(self, writer: DatabaseWriter, *, clock: Callable[[], datetime], grace: timedelta) -> None:
        """`grace` is how long after its end a lease holds on for a log that does not come back."""
        self._writer = writer
        self._clock = clock
        self._grace = grace

    async def acquire(self, asked: LeaseWish) -> Decision:
        """What is leased, now or by an earlier try under the same id.

        Raises NotFoundError for an organization or a key that does not exist, and InvalidRequestError for a life of a
        log that is over.
        """
        decision = await self._writer.run(lambda connection: self._acquire(connection, asked))
        LEASES.labels(decision.outcome.name).inc()
        return decision

    async def renew(self, organization_id: str, lease_ids: Sequence[str]) -> Sequence[str]:
        """Prolongs leases; returns those that are in force."""
        organization_uuid(organization_id)
        for lease_id in _few("lease_ids", lease_ids):
            require_uuid("lease_ids", lease_id)
        end = self._clock() + timedelta(seconds=LEASE_SECONDS)
        return await self._writer.run(lambda connection: leases.renew(connection, organization_id, lease_ids, end))

    async def give_back(self, organization_id: str, returns: Sequence[Returned]) -> Sequence[LeaseState]:
        """Frees what no call has reserved; returns the leases that are known."""
        organization_uuid(organization_id)
        for one in _few("returns", returns):
            require_uuid("returns.lease_id", one.lease_id)
        return await self._writer.run(lambda connection: leases.give_back(connection, organization_id, returns))

    async def end_lives(self, producer_id: str, before_epoch: int) -> Sequence[Lapsed]:
        """Frees what lives of a log hold whose records have all come."""
        require_uuid("producer_id", producer_id)
        if before_epoch < 1:
            raise InvalidRequestError("before_epoch", "must be at least 1")
        freed: list[Lapsed] = []
        while some := await self._writer.run(lambda connection: _end_lives(connection, producer_id, before_epoch)):
            freed += some
        LAPSED_LEASES.labels("drained").inc(len(freed))
        return freed

    async def follow(self) -> None:
        """Looks after leases whose time is over, for ever."""
        while True:
            try:
                await self.make_pass()
            except UnavailableError as error:
                log.warning("leases are looked after when the database is back: %s", error.message)
            await asyncio.sleep(PASS_SECONDS)

    async def make_pass(self) -> Sequence[Lapsed]:
        """Frees what leases of logs hold that have not come back in time, and says so."""
        now = self._clock()
        lapsed = await self._writer.run(lambda connection: leases.lapse(connection, now - self._grace))
        for one in lapsed:
            log.error(
                "a lease was freed though records of it may still come",
                extra={**one._asdict(), "lapsed": usd_from_pico(one.lapsed_pico)},
            )
        LAPSED_LEASES.labels("abandoned").inc(len(lapsed))
        await self._writer.run(lambda connection: leases.forget(connection, now - KEPT))
        count, held_pico = await self._writer.run(lambda connection: leases.find_overdue(connection, now))
        OVERDUE_LEASES.set(count)
        OVERDUE_USD.set(held_pico / PICO_PER_USD)
        return lapsed

    def _acquire(self, connection: Connection, asked: LeaseWish) -> Decision:
        with connection.transaction():
            has_book = leases.lock_book(connection, asked.organization_id)
            leases.give_back(connection, asked.organization_id, asked.returns)
            granted_pico = leases.find_granted(connection, asked.organization_id, asked.lease_id)
            if granted_pico is not None:
                return Decision(LeaseOutcome.GRANTED, granted_pico, granted_pico)
            if leases.is_over(connection, asked.producer_id, asked.epoch):
                raise InvalidRequestError("epoch", "is of a life of the log that is over")
            now = self._clock()
            means = _means(connection, asked, now) if has_book else _nothing(connection, asked.organization_id)
            decision = decide(asked.wish, means)
            if decision.outcome is LeaseOutcome.GRANTED:
                leases.add(connection, _new_lease(asked, decision.granted_pico, now))
            return decision


def _means(connection: Connection, asked: LeaseWish, now: datetime) -> Means:
    held_pico, held_by_key_pico = leases.find_held(connection, asked.organization_id, asked.api_key_id)
    return Means(
        worth_pico=leases.find_worth(connection, asked.organization_id, now),
        held_pico=held_pico,
        key=_key_budget(connection, asked, held_by_key_pico, now),
        organization=_organization_budget(connection, asked, held_pico, now),
    )


def _key_budget(connection: Connection, asked: LeaseWish, held_pico: int, now: datetime) -> Budget | None:
    if asked.api_key_id is None:
        return None
    exists, limit = leases.find_limit_of_key(connection, asked.organization_id, asked.api_key_id)
    if not exists:
        raise NotFoundError(f"API key {asked.api_key_id}")
    if limit is None:
        return None
    spent_pico = leases.find_spent_by_key(connection, asked.organization_id, asked.api_key_id, limit.period, now.date())
    return Budget(limit_pico=limit.amount_pico, spent_pico=spent_pico, held_pico=held_pico)


def _organization_budget(connection: Connection, asked: LeaseWish, held_pico: int, now: datetime) -> Budget | None:
    limit = leases.find_limit(connection, asked.organization_id)
    if limit is None:
        return None
    spent_pico = leases.find_spent(connection, asked.organization_id, limit.period, now.date())
    return Budget(limit_pico=limit.amount_pico, spent_pico=spent_pico, held_pico=held_pico)


def _nothing(connection: Connection, organization_id: str) -> Means:
    """An organization to which no credit was ever given. Raises NotFoundError when there is none."""
    if not books.lock_organization(connection, organization_id):
        raise NotFoundError(f"organization {organization_id}")
    return Means(worth_pico=0, held_pico=0)


def _new_lease(asked: LeaseWish, granted_pico: int, now: datetime) -> NewLease:
    return NewLease(
        organization_id=asked.organization_id,
        lease_id=asked.lease_id,
        api_key_id=asked.api_key_id,
        producer_id=asked.producer_id,
        epoch=asked.epoch,
        granted_pico=granted_pico,
        create_time=now,
        expire_time=now + timedelta(seconds=LEASE_SECONDS),
    )


def _end_lives(connection: Connection, producer_id: str, before_epoch: int) -> list[Lapsed]:
    with connection.transaction():
        return leases.end_lives(connection, producer_id, before_epoch)


def _few(field: str, items: Sequence[object]) -> Sequence:  # type: ignore[type-arg]
    if len(items) > AT_ONCE_MAX:
        raise InvalidRequestError(field, f"may have at most {AT_ONCE_MAX} entries")
    return items


def require_uuid(field: str, text: str) -> None:
    """Raises InvalidRequestError unless the text is a UUID as we write them."""
    if not _UUID.fullmatch(text):
        raise InvalidRequestError(field, "must be a UUID in lower case")
