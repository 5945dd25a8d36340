"""Credit that is added and given back, and what there is of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from services.common.money import usd_from_pico
from services.ledger.accounts.accounts import organization_uuid
from services.ledger.books.credits import Credit
from services.ledger.books.journal import Account, Balances, EntryKind, correct, correctable, grant, refund, spendable
from services.ledger.storage.books import books
from services.ledger.storage.books.books import Entry, Placed, Standing
from services.ledger.storage.books.credits import (
    CreditGrant,
    CreditSource,
    add_grant,
    find_grant,
    free_pico,
    set_next_expiry,
    set_remaining,
    settle,
)
from services.ledger.storage.books.refunds import Refund, RefundKind, add_refund, find_refund
from services.ledger.storage.transactions import transaction
from services.ledger.storage.writer import DatabaseWriter

AMOUNT_PICO_MAX = 9_000_000 * 10**12
REASON_LENGTH_MAX = 256
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """Credit to be added."""

    organization_id: str
    grant_id: str
    # PREPAID or PROMOTIONAL.
    account: Account
    amount_pico: int
    # Exclusive. None for credit that does not end.
    expire_time: datetime | None = None

    def __post_init__(self) -> None:
        organization_uuid(self.organization_id)
        _require_id("grant_id", self.grant_id)
        _require_amount(self.amount_pico)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """What is to be given back."""

    organization_id: str
    refund_id: str
    kind: RefundKind
    amount_pico: int
    # Of UNSPENT, and only then.
    grant_id: str | None
    # Of CORRECTION, and only then: PREPAID or PROMOTIONAL.
    account: Account | None
    reason: str

    def __post_init__(self) -> None:
        organization_uuid(self.organization_id)
        _require_id("refund_id", self.refund_id)
        _require_amount(self.amount_pico)
        if self.grant_id is not None:
            _require_id("grant_id", self.grant_id)
        if len(self.reason) > REASON_LENGTH_MAX or not self.reason.isprintable():
            raise InvalidRequestError("reason", f"must have at most {REASON_LENGTH_MAX} printable characters")
        if self.kind is RefundKind.CORRECTION and not self.reason:
            raise InvalidRequestError("reason", "must say why a charge is corrected")


class Billing:
    """Grants and refunds credit, ends it in time, and tells balances. Lives as long as the service."""

    def __init__(self, database: AsyncEngine, writer: DatabaseWriter, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    async def grant(self, new: NewGrant) -> CreditGrant:
        """The grant as booked, now or by an earlier try.

        Raises NotFoundError for an unknown organization, AlreadyExistsError when the id was used for something else,
        and InvalidRequestError for an end that is not in the future.
        """
        return await self._writer.run(lambda connection: self._grant(connection, new))

    async def refund(self, new: NewRefund) -> Refund:
        """The refund as booked, now or by an earlier try.

        Raises NotFoundError for an unknown organization or grant, AlreadyExistsError when the id was used for
        something else, and InvalidRequestError for more than there is to give back.
        """
        return await self._writer.run(lambda connection: self._refund(connection, new))

    async def standing(self, organization_id: str) -> Standing:
        """Raises NotFoundError for an unknown organization."""
        async with transaction(self._database) as connection:
            standing = await books.find_standing(connection, organization_uuid(organization_id), self._clock())
        if standing is None:
            raise _no_organization(organization_id)
        return standing

    def _grant(self, connection: Connection, new: NewGrant) -> CreditGrant:
        with connection.transaction():
            _lock(connection, new.organization_id)
            booked = find_grant(connection, new.organization_id, new.grant_id)
            if booked is None:
                return self._book_grant(connection, new)
        told = (booked.source, booked.account, booked.amount_pico, booked.expire_time)
        if told != (CreditSource.GRANT, new.account, new.amount_pico, new.expire_time):
            raise AlreadyExistsError(
                f"Grant {new.grant_id} exists with another amount, kind or end; choose another id.",
                grant_id=new.grant_id,
            )
        return booked

    def _book_grant(self, connection: Connection, new: NewGrant) -> CreditGrant:
        def entry(organization_id: str, balances: Balances) -> Entry:
            # What is there is spent in another order once this has come.
            settle(connection, organization_id, balances)
            return Entry(EntryKind.GRANT, new.grant_id, grant(new.account, new.amount_pico, balances))

        placed = books.post(connection, [new.organization_id], self._clock(), entry)[new.organization_id]
        # The books may be ahead of our clock, where another ledger's is.
        if new.expire_time is not None and new.expire_time <= placed.create_time:
            raise InvalidRequestError("expire_time", "must be in the future")
        return _add_credit(connection, placed, new, CreditSource.GRANT)

    def _refund(self, connection: Connection, new: NewRefund) -> Refund:
        with connection.transaction():
            _lock(connection, new.organization_id)
            booked = find_refund(connection, new.organization_id, new.refund_id)
            if booked is None:
                book = self._book_unspent if new.grant_id is not None else self._book_correction
                placed = book(connection, new)
                booked = _as_booked(new, placed)
                add_refund(connection, booked)
                return booked
        if _as_booked(new, booked) != booked:
            raise AlreadyExistsError(
                f"Refund {new.refund_id} exists and differs; choose another id.", refund_id=new.refund_id
            )
        return booked

    def _book_unspent(self, connection: Connection, new: NewRefund) -> Placed:
        grant_id = new.grant_id or ""
        booked = find_grant(connection, new.organization_id, grant_id)
        if booked is None:
            raise NotFoundError(f"grant {grant_id}")
        if booked.account is not Account.PREPAID or booked.source is not CreditSource.GRANT:
            raise InvalidRequestError("grant_id", "must name a grant that was paid for")

        def entry(organization_id: str, balances: Balances) -> Entry:
            left = settle(connection, organization_id, balances)
            self._take_out(connection, new, left, free_pico(connection, organization_id, balances))
            return Entry(EntryKind.REFUND, new.refund_id, refund(new.amount_pico))

        return books.post(connection, [new.organization_id], self._clock(), entry)[new.organization_id]

    @staticmethod
    def _take_out(connection: Connection, new: NewRefund, left: list[Credit], free_pico: int) -> None:
        credit = next((credit for credit in left if credit.grant_id == new.grant_id), None)
        unspent_pico = 0 if credit is None else credit.remaining_pico
        if free_pico < new.amount_pico <= unspent_pico:
            free = usd_from_pico(free_pico)
            raise InvalidRequestError("amount", f"must be at most {free} for now; running calls hold the rest")
        if credit is None or new.amount_pico > unspent_pico:
            unspent = usd_from_pico(unspent_pico)
            raise InvalidRequestError("amount", f"must be at most {unspent}, which is unspent of grant {new.grant_id}")
        rest = replace(credit, remaining_pico=unspent_pico - new.amount_pico)
        set_remaining(connection, new.organization_id, [rest])
        set_next_expiry(connection, new.organization_id)

    def _book_correction(self, connection: Connection, new: NewRefund) -> Placed:
        if new.account is None:
            raise ValueError("a correction makes credit of some kind")
        account = new.account
        if find_grant(connection, new.organization_id, new.refund_id) is not None:
            raise AlreadyExistsError(
                f"{new.refund_id} is the id of a grant; choose another for this correction.", refund_id=new.refund_id
            )

        def entry(organization_id: str, balances: Balances) -> Entry:
            if new.amount_pico > correctable(balances):
                charged = usd_from_pico(correctable(balances))
                raise InvalidRequestError("amount", f"must be at most {charged}, which was charged and not corrected")
            settle(connection, organization_id, balances)
            return Entry(EntryKind.CORRECTION, new.refund_id, correct(account, new.amount_pico, balances))

        placed = books.post(connection, [new.organization_id], self._clock(), entry)[new.organization_id]
        as_grant = NewGrant(
            organization_id=new.organization_id, grant_id=new.refund_id, account=account, amount_pico=new.amount_pico
        )
        _add_credit(connection, placed, as_grant, CreditSource.CORRECTION)
        return placed


def _lock(connection: Connection, organization_id: str) -> None:
    if not books.lock_organization(connection, organization_id):
        raise _no_organization(organization_id)


def _no_organization(organization_id: str) -> NotFoundError:
    return NotFoundError(f"organization {organization_id}")


def _add_credit(connection: Connection, placed: Placed, new: NewGrant, source: CreditSource) -> CreditGrant:
    booked = CreditGrant(
        organization_id=new.organization_id,
        grant_id=new.grant_id,
        source=source,
        account=new.account,
        amount_pico=new.amount_pico,
        expire_time=new.expire_time,
        sequence=placed.sequence,
        balance_pico=spendable(placed.balances),
        create_time=placed.create_time,
    )
    add_grant(connection, booked, placed.entry.postings.get(new.account, 0))
    return booked


def _as_booked(new: NewRefund, where: Placed | Refund) -> Refund:
    """The refund that was asked for, where something was booked."""
    return Refund(
        organization_id=new.organization_id,
        refund_id=new.refund_id,
        kind=new.kind,
        amount_pico=new.amount_pico,
        grant_id=new.grant_id,
        account=new.account,
        reason=new.reason,
        sequence=where.sequence,
        balance_pico=where.balance_pico if isinstance(where, Refund) else spendable(where.balances),
        create_time=where.create_time,
    )


def _require_id(field: str, text: str) -> None:
    if not _ID.fullmatch(text):
        raise InvalidRequestError(field, "must be 1 to 64 letters, digits or ._:-")


def _require_amount(amount_pico: int) -> None:
    if not 0 < amount_pico <= AMOUNT_PICO_MAX:
        raise InvalidRequestError("amount", "must be above 0 and at most 9000000")
