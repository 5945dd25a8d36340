"""Credit that is added, and what there is of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from services.ledger.accounts import organization_uuid
from services.ledger.journal import Account, Balances, EntryKind, grant, spendable
from services.ledger.storage import books
from services.ledger.storage.books import CreditGrant, Entry, Standing
from services.ledger.storage.transactions import transaction
from services.ledger.storage.writer import DatabaseWriter

AMOUNT_PICO_MAX = 9_000_000 * 10**12
_GRANT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewGrant:
    """Credit to be added."""

    organization_id: str
    grant_id: str
    # PREPAID or PROMOTIONAL.
    account: Account
    amount_pico: int

    def __post_init__(self) -> None:
        organization_uuid(self.organization_id)
        if not _GRANT_ID.fullmatch(self.grant_id):
            raise InvalidRequestError("grant_id", "must be 1 to 64 letters, digits or ._:-")
        if not 0 < self.amount_pico <= AMOUNT_PICO_MAX:
            raise InvalidRequestError("amount", "must be above 0 and at most 9000000")


class Billing:
    """Grants credit and tells balances. Lives as long as the service."""

    def __init__(self, database: AsyncEngine, writer: DatabaseWriter, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    async def grant(self, new: NewGrant) -> CreditGrant:
        """The grant as booked, now or by an earlier try.

        Raises NotFoundError for an unknown organization, AlreadyExistsError when the id was used for another grant.
        """
        return await self._writer.run(lambda connection: self._grant(connection, new))

    async def standing(self, organization_id: str) -> Standing:
        """Raises NotFoundError for an unknown organization."""
        async with transaction(self._database) as connection:
            standing = await books.find_standing(connection, organization_uuid(organization_id))
        if standing is None:
            raise NotFoundError(f"organization {organization_id}")
        return standing

    def _grant(self, connection: Connection, new: NewGrant) -> CreditGrant:
        with connection.transaction():
            if not books.lock_organization(connection, new.organization_id):
                raise NotFoundError(f"organization {new.organization_id}")
            booked = books.find_grant(connection, new.organization_id, new.grant_id)
            if booked is None:
                return self._book(connection, new)
        if (booked.account, booked.amount_pico) != (new.account, new.amount_pico):
            raise AlreadyExistsError(
                f"Grant {new.grant_id} exists with another amount or kind; choose another id.", grant_id=new.grant_id
            )
        return booked

    def _book(self, connection: Connection, new: NewGrant) -> CreditGrant:
        now = self._clock()

        def entry(_: str, balances: Balances) -> Entry:
            return Entry(EntryKind.GRANT, new.grant_id, now, grant(new.account, new.amount_pico, balances))

        standing = books.post(connection, [new.organization_id], entry)[new.organization_id]
        booked = CreditGrant(
            organization_id=new.organization_id,
            grant_id=new.grant_id,
            account=new.account,
            amount_pico=new.amount_pico,
            sequence=standing.sequence,
            balance_pico=spendable(standing.balances),
            create_time=now,
        )
        books.add_grant(connection, booked)
        return booked
