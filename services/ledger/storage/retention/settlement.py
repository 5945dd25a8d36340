"""Carries out changes of plan on disk: what they hid goes, the rest moves to where it is kept as long as it should.

Until that is done the change shows in `retention_floor`, so that what had expired before it stays hidden.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from psycopg import Connection, errors

from services.ledger.retention.retention import Kept, Place, Sums, retention_class
from services.ledger.storage import partitions
from services.ledger.storage.books import control_totals
from services.ledger.storage.partitions import Partitions
from services.ledger.storage.retention.expiry import Attempt, Gone, Outcome, count_rows, unchanging, write_down

# A batch that was begun before a change writes by the plan of before. None takes longer than this.
IN_FLIGHT_MAX = timedelta(minutes=5)

_CHANGED = """
    SELECT DISTINCT organization_id::text, organization.retention_days
      FROM ledger.organization
      JOIN ledger.organization_plan AS change USING (organization_id)
      LEFT JOIN ledger.plan_settlement AS settled USING (organization_id, valid_from)
     WHERE settled.settle_time IS NULL
       AND EXISTS (SELECT FROM ledger.organization_plan AS before
                    WHERE before.organization_id = change.organization_id AND before.valid_from < change.valid_from)
     ORDER BY 1
"""
_HAS_DETAIL = """
    SELECT EXISTS (SELECT FROM ledger.usage_record
                    WHERE retention_class = %s AND request_day = %s AND organization_id = %s::uuid)
"""
# Figures of an hour that is not all past may still be asked of detail, so a limit that moves on leaves that hour's to
# expire with its day. One that stands still is that of a larger plan: what lies before it must not come back.
_LIMIT = """
    SELECT retention_days, CASE WHEN kept_since = retention_floor THEN kept_since
                                ELSE date_trunc('hour', kept_since, 'UTC') END
      FROM (SELECT retention_days, retention_floor, ledger.kept_since(%s, retention_days, retention_floor) AS kept_since
              FROM reporting.organization WHERE organization_id = %s::uuid) AS own
"""
_MINE = """
    retention_class = %(retention_class)s AND request_day = %(day)s AND organization_id = %(organization_id)s::uuid
"""
_DELETE_PAYLOADS = f"""
    WITH gone AS (DELETE FROM ledger.payload WHERE {_MINE} AND start_time < %(kept_since)s RETURNING request_id)
    SELECT count(*) FROM gone
"""  # noqa: S608 conditions of ours
_DELETE_DETAIL = f"""
    WITH gone AS (
        DELETE FROM ledger.usage_record WHERE {_MINE} AND start_time < %(kept_since)s
        RETURNING unpriced, cost_pico, line_cost_pico, saved_pico, charged_pico
    )
    SELECT count(*), count(*) FILTER (WHERE unpriced),
           sum(CASE WHEN unpriced THEN COALESCE(ledger.sum_of(line_cost_pico::numeric[]), 0) ELSE cost_pico END),
           sum(saved_pico), sum(charged_pico)
      FROM gone
"""  # noqa: S608 conditions of ours
_MOVE = [
    f"UPDATE ledger.{table} SET retention_class = %(own_class)s WHERE {_MINE}"  # noqa: S608 ours
    for table in ("payload", "usage_record")
]
_SETTLE = """
    INSERT INTO ledger.plan_settlement (organization_id, valid_from, settle_time)
    SELECT organization_id, valid_from, %(now)s
      FROM ledger.organization_plan
      LEFT JOIN ledger.plan_settlement AS settled USING (organization_id, valid_from)
     WHERE organization_id = %(organization_id)s::uuid AND valid_from <= %(before)s AND settled.settle_time IS NULL
"""
_HAS_EXPIRED_HOURS = """
    SELECT EXISTS (
        SELECT FROM ledger.usage_hour JOIN reporting.organization USING (organization_id)
         WHERE organization_id = %s::uuid
           AND hour < date_trunc('hour', ledger.kept_since(%s, retention_days, retention_floor), 'UTC')
    )
"""


class Change(NamedTuple):
    """An organization whose records do not lie where its plan wants them yet."""

    organization_id: str
    retention_days: int


def changes(connection: Connection) -> list[Change]:
    """Every organization whose plan has changed and not been settled."""
    return [Change(*row) for row in connection.execute(_CHANGED)]


def misplaced(connection: Connection, change: Change) -> list[Place]:
    """Where the organization has detail that its plan wants elsewhere, or gone."""
    own_class = retention_class(change.retention_days)
    return [
        place
        for place in partitions.places(connection)
        if place.retention_class != own_class
        and connection.execute(_HAS_DETAIL, (*place, change.organization_id)).fetchone() == (True,)
    ]


def clear(connection: Connection, organization_id: str, place: Place, now: datetime) -> Attempt:
    """Leaves nothing of the organization in a place: what it sees no more is deleted, the rest moves to its class.

    One day of one organization in one transaction; recording goes on meanwhile.
    """
    row = connection.execute(_LIMIT, (now, organization_id)).fetchone()
    if row is None:
        raise ValueError(f"there is no organization {organization_id}")
    own_class, kept_since = retention_class(row[0]), row[1]
    own = Place(own_class, place.day)
    Partitions().ensure(connection, [partitions.of_detail(own), partitions.of_payloads(own)])
    values = {
        "organization_id": organization_id,
        **place._asdict(),
        "own_class": own_class,
        "kept_since": kept_since,
    }
    try:
        with unchanging(connection):
            here = control_totals.detail_at(connection, place, [organization_id])
            elsewhere = [one for one in partitions.places(connection) if one.day == place.day and one != place]
            mismatches = control_totals.detail_mismatches(connection, place.day, here, [organization_id], elsewhere)
            if mismatches:
                return Attempt(Outcome.MISMATCH, mismatches=mismatches)
            gone = _delete_expired(connection, organization_id, place, values)
            write_down(connection, gone, now)
            for statement in _MOVE:
                connection.execute(statement.encode(), values)
    except errors.SerializationFailure:
        return Attempt(Outcome.BUSY)
    return Attempt(Outcome.DONE, count_rows(gone))


def _delete_expired(
    connection: Connection, organization_id: str, place: Place, values: dict[str, object]
) -> list[Gone]:
    row = connection.execute(_DELETE_PAYLOADS, values).fetchone()
    payload_count = row[0] if row else 0
    sums = Sums(*(int(value or 0) for value in connection.execute(_DELETE_DETAIL, values).fetchone() or ()))
    payloads, detail = partitions.of_payloads(place).name, partitions.of_detail(place).name
    return [
        Gone(organization_id, place.day, Kept.PAYLOAD, payloads, payload_count, None),
        Gone(organization_id, place.day, Kept.DETAIL, detail, sums.record_count, sums),
    ]


def settle(connection: Connection, change: Change, now: datetime) -> bool:
    """Writes down that a change is carried out, if it is. False when something is left to do, or may still come."""
    if misplaced(connection, change):
        return False
    if connection.execute(_HAS_EXPIRED_HOURS, (change.organization_id, now)).fetchone() == (True,):
        return False
    values = {"organization_id": change.organization_id, "now": now, "before": now - IN_FLIGHT_MAX}
    connection.execute(_SETTLE, values)
    return True
