"""The partitions of keys and detail: made before they are needed, one per day, and per retention class for detail."""

from collections.abc import Iterable
from datetime import date, timedelta

from psycopg import Connection, errors, sql

from services.ledger.accounts import Plan

# A batch waits no longer than this for a reader that holds the table; it is tried again.
LOCK_TIMEOUT = "2s"
# Whoever creates the same partition at the same time was quicker.
_MADE_BY_ANOTHER = (errors.DuplicateTable, errors.UniqueViolation, errors.InvalidObjectDefinition)


class Partitions:
    """Knows which partitions there are. Belongs to one connection's owner."""

    def __init__(self) -> None:
        self._ready: set[date] = set()

    def forget(self) -> None:
        """Looks again next time: retention may have dropped some."""
        self._ready.clear()

    def ensure(self, connection: Connection, days: Iterable[date]) -> None:
        """Makes the partitions of these days that are missing, outside any transaction of the caller."""
        for day in sorted(set(days) - self._ready):
            _ensure(connection, "record_key", f"record_key_{day:%Y%m%d}", (day,), (day + timedelta(days=1),))
            for plan in Plan:
                name = f"usage_record_{plan.name.lower()}_{day:%Y%m%d}"
                _ensure(connection, "usage_record", name, (int(plan), day), (int(plan), day + timedelta(days=1)))
            self._ready.add(day)


def _ensure(
    connection: Connection, table: str, name: str, lower: tuple[int | date, ...], upper: tuple[int | date, ...]
) -> None:
    query = "SELECT to_regclass(%s) IS NOT NULL"
    row = connection.execute(query, (f"ledger.{name}",)).fetchone()
    if row is not None and row[0]:
        return
    names = {"table": sql.Identifier("ledger", table), "partition": sql.Identifier("ledger", name)}
    bounds = {"lower": _bound(lower), "upper": _bound(upper)}
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # Attaching holds up neither readers nor writers; CREATE … PARTITION OF would wait for both.
            connection.execute(sql.SQL("CREATE TABLE {partition} (LIKE {table} INCLUDING ALL)").format(**names))
            attach = "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({lower}) TO ({upper})"
            connection.execute(sql.SQL(attach).format(**names, **bounds))
    except _MADE_BY_ANOTHER:
        return


def _bound(values: tuple[int | date, ...]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Literal(str(value) if isinstance(value, date) else value) for value in values)
