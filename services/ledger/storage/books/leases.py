"""Leases in PostgreSQL, and what limits them. Works inside its caller's transaction.

Granting holds the organization's book, like whatever else lowers its balance. Giving back and settling only ever free
credit, so they lock nothing but the leases themselves, after the book where they need both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from psycopg import Connection

from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod
from services.ledger.books.credits import settled, without_ended
from services.ledger.books.journal import worth
from services.ledger.storage.array_literals import array_of
from services.ledger.storage.books import postings
from services.ledger.storage.books.credits import OPEN, credit_from_row
from services.ledger.storage.books.spending_limits import limit_from_row
from services.ledger.usage.records import Reserved


class Returned(NamedTuple):
    """What was given back of one lease since it began."""

    lease_id: str
    returned_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLease:
    """A lease to be written down."""

    organization_id: str
    lease_id: str
    api_key_id: str | None
    producer_id: str
    epoch: int
    granted_pico: int
    create_time: datetime
    expire_time: datetime


class LeaseState(NamedTuple):
    """What is known of a lease."""

    lease_id: str
    held_pico: int
    expire_time: datetime


class Lapsed(NamedTuple):
    """A lease that was freed because no record of it can come any more, or none did for too long."""

    organization_id: str
    lease_id: str
    producer_id: str
    epoch: int
    lapsed_pico: int


_LOCK_BOOK = "SELECT 1 FROM ledger.book WHERE organization_id = %s::uuid FOR UPDATE"
_GRANTED = "SELECT granted_pico FROM ledger.lease WHERE organization_id = %s::uuid AND lease_id = %s::uuid"
_IS_OVER = "SELECT before_epoch > %s FROM ledger.producer_release WHERE producer_id = %s::uuid"
_HELD = """
    SELECT COALESCE(sum(held_pico), 0), COALESCE(sum(held_pico) FILTER (WHERE api_key_id = %s::uuid), 0)
      FROM ledger.lease WHERE organization_id = %s::uuid AND held_pico > 0
"""
_LIMIT_OF_KEY = """
    SELECT spending_limit_pico, spending_period
      FROM ledger.api_key WHERE api_key_id = %s::uuid AND organization_id = %s::uuid
"""
_LIMIT = "SELECT spending_limit_pico, spending_period FROM ledger.organization WHERE organization_id = %s::uuid"
_SPENT_BY_KEY = """
    SELECT COALESCE(sum(charged_pico), 0)
      FROM ledger.key_spending WHERE organization_id = %s::uuid AND api_key_id = %s::uuid AND day BETWEEN %s AND %s
"""
_SPENT = """
    SELECT COALESCE(sum(charged_pico), 0)
      FROM ledger.organization_spending WHERE organization_id = %s::uuid AND day BETWEEN %s AND %s
"""
_ADD = """
    INSERT INTO ledger.lease
           (organization_id, lease_id, api_key_id, producer_id, epoch, granted_pico, create_time, expire_time)
    VALUES (%s::uuid, %s::uuid, %s::uuid, %s::uuid, %s, %s, %s, %s)
"""
# Locked in one order, by whoever changes several.
_RETURN = """
    UPDATE ledger.lease
       SET returned_pico = lease.returned_pico
           + LEAST(lease.held_pico, GREATEST(0, told.returned_pico - lease.returned_pico))
      FROM (
           SELECT lease_id, told.returned_pico
             FROM ledger.lease JOIN unnest(%s::uuid[], %s::numeric[]) AS told (lease_id, returned_pico) USING (lease_id)
            WHERE organization_id = %s::uuid
            ORDER BY lease_id FOR UPDATE OF lease
           ) AS told
     WHERE lease.organization_id = %s::uuid AND lease.lease_id = told.lease_id
    RETURNING lease.lease_id::text, lease.held_pico, lease.expire_time
"""
_SETTLE = """
    UPDATE ledger.lease
       SET settled_pico = lease.settled_pico + LEAST(lease.held_pico, told.reserved_pico)
      FROM (
           SELECT organization_id, lease_id, told.reserved_pico
             FROM ledger.lease
             JOIN unnest(%s::uuid[], %s::uuid[], %s::numeric[]) AS told (organization_id, lease_id, reserved_pico)
            USING (organization_id, lease_id)
            ORDER BY organization_id, lease_id FOR UPDATE OF lease
           ) AS told
     WHERE lease.organization_id = told.organization_id AND lease.lease_id = told.lease_id
"""
_RENEW = """
    UPDATE ledger.lease SET expire_time = GREATEST(expire_time, %s)
     WHERE organization_id = %s::uuid AND lease_id = ANY(%s::uuid[]) AND lapsed_pico = 0
    RETURNING lease_id::text
"""
_END_LIVES = """
    INSERT INTO ledger.producer_release (producer_id, before_epoch) VALUES (%s::uuid, %s)
    ON CONFLICT (producer_id) DO UPDATE
       SET before_epoch = GREATEST(producer_release.before_epoch, excluded.before_epoch)
"""
_LAPSE = """
    UPDATE ledger.lease
       SET lapsed_pico = lease.lapsed_pico + lease.held_pico
      FROM (
           SELECT organization_id, lease_id, held_pico FROM ledger.lease
            WHERE held_pico > 0 AND {condition}
            ORDER BY organization_id, lease_id LIMIT 1000 FOR UPDATE
           ) AS before
     WHERE lease.organization_id = before.organization_id AND lease.lease_id = before.lease_id
    RETURNING lease.organization_id::text, lease.lease_id::text, producer_id::text, epoch, before.held_pico
"""
_LAPSE_LIVES = _LAPSE.format(condition="producer_id = %s::uuid AND epoch < %s")
_LAPSE_LATE = _LAPSE.format(condition="expire_time < %s")
_FORGET = "DELETE FROM ledger.lease WHERE expire_time < %s AND held_pico = 0"
_OVERDUE = """
    SELECT count(*), COALESCE(sum(held_pico), 0) FROM ledger.lease WHERE held_pico > 0 AND expire_time < %s
"""
_ADD_SPENDING_OF_KEYS = """
    INSERT INTO ledger.key_spending (organization_id, api_key_id, day, charged_pico)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::date[], %s::numeric[])
           AS spent (organization_id, api_key_id, day, charged_pico)
     ORDER BY organization_id, api_key_id, day
    ON CONFLICT (organization_id, api_key_id, day) DO UPDATE
       SET charged_pico = key_spending.charged_pico + excluded.charged_pico
"""
_ADD_SPENDING = """
    INSERT INTO ledger.organization_spending (organization_id, day, charged_pico)
    SELECT organization_id, day, sum(charged_pico)
      FROM unnest(%s::uuid[], %s::date[], %s::numeric[]) AS spent (organization_id, day, charged_pico)
     GROUP BY organization_id, day
     ORDER BY organization_id, day
    ON CONFLICT (organization_id, day) DO UPDATE
       SET charged_pico = organization_spending.charged_pico + excluded.charged_pico
"""
_FIRST_DAY = date(1970, 1, 1)
_LAST_DAY = date(9999, 12, 31)


# Granting


def lock_book(connection: Connection, organization_id: str) -> bool:
    """Makes whatever lowers the balance wait. False when nothing was ever booked for the organization."""
    return connection.execute(_LOCK_BOOK, (organization_id,)).fetchone() is not None


def find_granted(connection: Connection, organization_id: str, lease_id: str) -> int | None:
    """What an earlier try was granted under this id."""
    row = connection.execute(_GRANTED, (organization_id, lease_id)).fetchone()
    return None if row is None else int(row[0])


def is_over(connection: Connection, producer_id: str, epoch: int) -> bool:
    """Whether everything that this life of the log wrote is recorded already."""
    return connection.execute(_IS_OVER, (epoch, producer_id)).fetchone() == (True,)


def find_worth(connection: Connection, organization_id: str, now: datetime) -> int:
    """What the organization has, less what it owes, without credit that has ended. Under the lock of the book."""
    balances = postings.find_balances(connection, [organization_id])[organization_id]
    opened = [credit_from_row(row) for row in connection.execute(OPEN, (organization_id,))]
    return worth(without_ended(balances, settled(opened, balances), now))


def find_held(connection: Connection, organization_id: str, api_key_id: str | None = None) -> tuple[int, int]:
    """What leases of the organization hold, and those of the key among them."""
    row = connection.execute(_HELD, (api_key_id, organization_id)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def find_limit_of_key(
    connection: Connection, organization_id: str, api_key_id: str
) -> tuple[bool, SpendingLimit | None]:
    """Whether there is such a key, and its limit."""
    row = connection.execute(_LIMIT_OF_KEY, (api_key_id, organization_id)).fetchone()
    return row is not None, None if row is None else limit_from_row(*row)


def find_limit(connection: Connection, organization_id: str) -> SpendingLimit | None:
    """That of the organization."""
    row = connection.execute(_LIMIT, (organization_id,)).fetchone()
    return None if row is None else limit_from_row(*row)


def find_spent_by_key(
    connection: Connection, organization_id: str, api_key_id: str, period: SpendingPeriod, today: date
) -> int:
    """What calls of the key that started in the period of today were charged."""
    row = connection.execute(_SPENT_BY_KEY, (organization_id, api_key_id, *_days(period, today))).fetchone()
    return int(row[0]) if row else 0


def find_spent(connection: Connection, organization_id: str, period: SpendingPeriod, today: date) -> int:
    """What calls of all keys that started in the period of today were charged."""
    row = connection.execute(_SPENT, (organization_id, *_days(period, today))).fetchone()
    return int(row[0]) if row else 0


def _days(period: SpendingPeriod, today: date) -> tuple[date, date]:
    first = {SpendingPeriod.DAY: today, SpendingPeriod.MONTH: today.replace(day=1), SpendingPeriod.TOTAL: _FIRST_DAY}
    # Calls that start later have not been charged yet, but the clocks of routers differ.
    return first[period], today if period is SpendingPeriod.DAY else _LAST_DAY


def add(connection: Connection, lease: NewLease) -> None:
    values = (
        lease.organization_id,
        lease.lease_id,
        lease.api_key_id,
        lease.producer_id,
        lease.epoch,
        lease.granted_pico,
        lease.create_time,
        lease.expire_time,
    )
    connection.execute(_ADD, values)


# Changing


def give_back(connection: Connection, organization_id: str, returns: Sequence[Returned]) -> list[LeaseState]:
    """Frees what was given back since the last time. Returns those that are known."""
    if not returns:
        return []
    told = {one.lease_id: one.returned_pico for one in returns}
    values = (list(told), list(told.values()), organization_id, organization_id)
    return [LeaseState(one, int(held), end) for one, held, end in connection.execute(_RETURN, values)]


def settle(connection: Connection, reserved: Iterable[Reserved]) -> None:
    """Calls were recorded: their leases hold what they had reserved no more."""
    sums: dict[tuple[str, str], int] = {}
    for organization_id, lease_id, reserved_pico in reserved:
        key = (organization_id, lease_id)
        sums[key] = sums.get(key, 0) + reserved_pico
    if sums:
        organizations, leases = (array_of(column) for column in zip(*sums, strict=True))
        connection.execute(_SETTLE, (organizations, leases, array_of(sums.values())))


def renew(connection: Connection, organization_id: str, lease_ids: Collection[str], expire_time: datetime) -> list[str]:
    """Prolongs leases. Returns those that have not lapsed."""
    rows = connection.execute(_RENEW, (expire_time, organization_id, list(lease_ids)))
    return [lease_id for (lease_id,) in rows]


def end_lives(connection: Connection, producer_id: str, before_epoch: int) -> list[Lapsed]:
    """Frees what earlier lives of a log still hold, and lets them have no more. At most 1,000 at once."""
    connection.execute(_END_LIVES, (producer_id, before_epoch))
    return [_lapsed(row) for row in connection.execute(_LAPSE_LIVES, (producer_id, before_epoch))]


def lapse(connection: Connection, ended_before: datetime) -> list[Lapsed]:
    """Frees what leases hold that ended so long ago. At most 1,000 at once."""
    return [_lapsed(row) for row in connection.execute(_LAPSE_LATE, (ended_before,))]


def forget(connection: Connection, ended_before: datetime) -> None:
    """Deletes leases that hold nothing and ended so long ago."""
    connection.execute(_FORGET, (ended_before,))


def find_overdue(connection: Connection, now: datetime) -> tuple[int, int]:
    """How many leases hold something beyond their time, and how much."""
    row = connection.execute(_OVERDUE, (now,)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


# Spending


def add_spending(connection: Connection, spent: Mapping[tuple[str, str, date], int]) -> None:
    """Adds charges to what keys and organizations have spent: by organization, key and day."""
    if spent:
        organizations, keys, days = (array_of(column) for column in zip(*spent, strict=True))
        charges = array_of(spent.values())
        connection.execute(_ADD_SPENDING_OF_KEYS, (organizations, keys, days, charges))
        connection.execute(_ADD_SPENDING, (organizations, days, charges))


def _lapsed(row: Sequence[object]) -> Lapsed:
    organization_id, lease_id, producer_id, epoch, lapsed_pico = row
    return Lapsed(str(organization_id), str(lease_id), str(producer_id), int(str(epoch)), int(str(lapsed_pico)))
