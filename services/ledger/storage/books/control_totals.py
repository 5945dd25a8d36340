"""What was recorded of a day, what of it has expired and what is there, asked of each place that keeps it.

For each organization and day, detail and its expiries together are `record_day`; so are hourly figures and theirs.
Every transaction keeps to that, so whatever is about to expire can be held against it. Works inside its caller's
transaction.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime

from psycopg import Connection

from services.ledger.retention.retention import Kept, Mismatch, Place, Sums

_RECORDED = """
    SELECT organization_id::text, record_count, unpriced_count, cost_pico, saved_pico, charged_pico
      FROM ledger.record_day WHERE day = %s
"""
_EXPIRED = """
    SELECT organization_id::text, sum(record_count), sum(unpriced_count), sum(cost_pico), sum(saved_pico),
           sum(charged_pico)
      FROM ledger.expiry WHERE day = %s AND kind = %s GROUP BY organization_id
"""
# The lines of a record with a price add up to its cost, by a CHECK; without one it may still have one, for storage.
_DETAIL = """
    SELECT organization_id::text, count(*), count(*) FILTER (WHERE unpriced),
           sum(CASE WHEN unpriced THEN COALESCE(ledger.sum_of(line_cost_pico::numeric[]), 0) ELSE cost_pico END),
           sum(saved_pico), sum(charged_pico)
      FROM ledger.usage_record
     WHERE retention_class = %(retention_class)s AND request_day = %(day)s
       AND (%(ids)s::uuid[] IS NULL OR organization_id = ANY (%(ids)s::uuid[]))
     GROUP BY organization_id
"""
_HOURS = """
    SELECT sum(request_count), sum(unpriced_count), sum(cost_pico), sum(saved_pico), sum(charged_pico)
      FROM ledger.usage_hour
     WHERE organization_id = %s::uuid AND hour >= %s AND hour < %s
"""


def recorded(connection: Connection, day: date) -> dict[str, Sums]:
    """What was ever recorded of the day, by organization."""
    return _by_organization(connection.execute(_RECORDED, (day,)))


def expired(connection: Connection, day: date, kind: Kept) -> dict[str, Sums]:
    """What has gone of the day, by organization."""
    return _by_organization(connection.execute(_EXPIRED, (day, int(kind))))


def detail_at(connection: Connection, place: Place, ids: Collection[str] | None = None) -> dict[str, Sums]:
    """What the records in a place add up to, by organization: of these, or of all that have any there."""
    values = {**place._asdict(), "ids": None if ids is None else sorted(ids)}
    return _by_organization(connection.execute(_DETAIL, values))


def hours_between(connection: Connection, organization_id: str, start: datetime, end: datetime) -> Sums:
    """What the hours from `start` to `end`, which is not one of them, add up to."""
    row = connection.execute(_HOURS, (organization_id, start, end)).fetchone()
    return Sums(*(int(value or 0) for value in row or ()))


def detail_mismatches(
    connection: Connection, day: date, here: dict[str, Sums], ids: Iterable[str], elsewhere: Collection[Place]
) -> list[Mismatch]:
    """Which organizations have other records of a day than what was recorded and has not expired.

    `here` is what one place holds; the other places of the day are only looked at for those that it does not explain.
    """
    recorded_sums, expired_sums = recorded(connection, day), expired(connection, day, Kept.DETAIL)
    expected = {one: recorded_sums.get(one, Sums()).minus(expired_sums.get(one, Sums())) for one in ids}
    found = {one: here.get(one, Sums()) for one in expected}
    suspects = [one for one in expected if expected[one] != found[one]]
    for place in elsewhere if suspects else ():
        for one, sums in detail_at(connection, place, suspects).items():
            found[one] = found[one].plus(sums)
    return [
        Mismatch(one, day, Kept.DETAIL, expected[one], found[one]) for one in suspects if expected[one] != found[one]
    ]


def _by_organization(rows: Iterable[tuple[object, ...]]) -> dict[str, Sums]:
    return {str(organization_id): Sums(*map(_whole, sums)) for organization_id, *sums in rows}


def _whole(value: object) -> int:
    """PostgreSQL's sums of whole numbers come as decimals."""
    return int(str(value))
