"""The partitions of keys, detail and payloads: made before they are needed, dropped when they have expired."""

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple

from psycopg import Connection, errors, sql

from services.ledger.retention.retention import Place

# A batch waits no longer than this for a reader that holds the table; it is tried again.
LOCK_TIMEOUT = "2s"
# Whoever creates the same partition at the same time was quicker.
_MADE_BY_ANOTHER = (
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.UniqueViolation,
    errors.InvalidObjectDefinition,
)
_BY_PLACE = re.compile(r"(?P<table>usage_record|payload)_(?P<retention_class>\d{3})_(?P<day>\d{8})", re.ASCII)
_BY_DAY = re.compile(r"(?P<table>record_key)_(?P<day>\d{8})", re.ASCII)


class Partition(NamedTuple):
    """One partition, and from where to where its rows go."""

    table: str
    name: str
    lower: tuple[int | date, ...]
    upper: tuple[int | date, ...]


def of_keys(day: date) -> Partition:
    """Of the keys whose ids are of this day."""
    return Partition("record_key", f"record_key_{day:%Y%m%d}", (day,), (day + timedelta(days=1),))


def of_detail(place: Place) -> Partition:
    return _of_place("usage_record", place)


def of_payloads(place: Place) -> Partition:
    return _of_place("payload", place)


def _of_place(table: str, place: Place) -> Partition:
    retention_class, day = place
    name = f"{table}_{retention_class:03d}_{day:%Y%m%d}"
    return Partition(table, name, place, (retention_class, day + timedelta(days=1)))


class Partitions:
    """Knows which partitions there are. Belongs to one connection's owner."""

    def __init__(self) -> None:
        self._ready: set[str] = set()

    def forget(self) -> None:
        """Looks again next time: retention may have dropped some."""
        self._ready.clear()

    def ensure(self, connection: Connection, wanted: Iterable[Partition]) -> None:
        """Makes those that are missing, outside any transaction of the caller."""
        for partition in sorted(wanted):
            if partition.name not in self._ready:
                _ensure(connection, partition)
                self._ready.add(partition.name)


def _ensure(connection: Connection, partition: Partition) -> None:
    query = "SELECT to_regclass(%s) IS NOT NULL"
    row = connection.execute(query, (f"ledger.{partition.name}",)).fetchone()
    if row is not None and row[0]:
        return
    names = _names(partition)
    bounds = {"lower": _bound(partition.lower), "upper": _bound(partition.upper)}
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # Attaching holds up neither readers nor writers; CREATE … PARTITION OF would wait for both.
            connection.execute(sql.SQL("CREATE TABLE {partition} (LIKE {table} INCLUDING ALL)").format(**names))
            attach = "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({lower}) TO ({upper})"
            connection.execute(sql.SQL(attach).format(**names, **bounds))
    except _MADE_BY_ANOTHER:
        return


def places(connection: Connection) -> list[Place]:
    """Where there is detail or may be, the oldest day first."""
    found = (match for match in _found(connection, "usage_record", _BY_PLACE))
    return sorted((_place(match) for match in found), key=lambda place: (place.day, place.retention_class))


def key_days(connection: Connection) -> list[date]:
    """The days that keys are kept of, in order."""
    return sorted(_day(match) for match in _found(connection, "record_key", _BY_DAY))


def exists(connection: Connection, partition: Partition) -> bool:
    """Whether there is such a partition."""
    query = "SELECT to_regclass(%s) IS NOT NULL"
    return connection.execute(query, (f"ledger.{partition.name}",)).fetchone() == (True,)


def drop(connection: Connection, partition: Partition) -> None:
    """Takes the partition off the disk when the transaction commits. Its table must be locked."""
    names = _names(partition)
    connection.execute(sql.SQL("ALTER TABLE {table} DETACH PARTITION {partition}").format(**names))
    connection.execute(sql.SQL("DROP TABLE {partition}").format(**names))


def _found(connection: Connection, table: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    query = """
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass
    """
    matches = (pattern.fullmatch(name) for (name,) in connection.execute(query, (f"ledger.{table}",)))
    return [match for match in matches if match is not None]


def _place(match: re.Match[str]) -> Place:
    return Place(int(match["retention_class"]), _day(match))


def _day(match: re.Match[str]) -> date:
    return datetime.strptime(match["day"], "%Y%m%d").date()  # noqa: DTZ007 a day, not a time


def _names(partition: Partition) -> dict[str, sql.Identifier]:
    return {"table": sql.Identifier("ledger", partition.table), "partition": sql.Identifier("ledger", partition.name)}


def _bound(values: tuple[int | date, ...]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Literal(str(value) if isinstance(value, date) else value) for value in values)
