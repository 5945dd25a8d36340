"""Who does what only one ledger at a time should do: a row with a lease. Works inside its caller's transaction."""

from datetime import datetime, timedelta
from uuid import UUID

from psycopg import Connection

# Long enough for the longest step of any task; what a ledger that died was doing waits so long for another.
LEASE = timedelta(minutes=15)

_TAKE = """
    INSERT INTO ledger.leader (task, holder, lease_end) VALUES (%(task)s, %(holder)s, %(lease_end)s)
    ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, lease_end = excluded.lease_end
     WHERE leader.holder = excluded.holder OR leader.lease_end <= %(now)s
    RETURNING holder
"""
_GIVE_UP = "DELETE FROM ledger.leader WHERE task = %s AND holder = %s"


def lead(connection: Connection, task: str, holder: UUID, now: datetime) -> bool:
    """Takes the lease, or renews it. False while another holds it."""
    values = {"task": task, "holder": holder, "lease_end": now + LEASE, "now": now}
    return connection.execute(_TAKE, values).fetchone() is not None


def give_up(connection: Connection, task: str, holder: UUID) -> None:
    """Lets another lead at once. Changes nothing when another does already."""
    connection.execute(_GIVE_UP, (task, holder))
