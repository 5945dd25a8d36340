"""A day's money and a day's records, per organization, in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Mapping

from psycopg import Connection

from services.ledger.daily import MONEY, RECORDS, DayKey, MoneyKey, Sums

_MONEY_KEY = {
    "organization_id": "uuid",
    "day": "date",
    "provider": "text",
    "model": "text",
    "funding": "smallint",
    "line": "smallint",
    "price_version_id": "bigint",
    "discount": "numeric",
}
_DAY_KEY = {"organization_id": "uuid", "day": "date"}


def _adding(table: str, key: Mapping[str, str], key_order: str, sums: tuple[str, ...]) -> str:
    """Adds rows, given as one array per column, to those that are there.

    Sorted, so that two batches lock the rows they share in the same order.
    """
    types = [*key.values(), *("bigint" if name.endswith("_count") else "numeric" for name in sums)]
    columns = ", ".join((*key, *sums))
    return f"""
        INSERT INTO ledger.{table} ({columns})
        SELECT {columns} FROM unnest({", ".join(f"%s::{one}[]" for one in types)}) AS added ({columns})
         ORDER BY {key_order}
        ON CONFLICT ({key_order}) DO UPDATE
           SET {", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)}
    """  # noqa: S608 columns of ours


_ADD_MONEY = _adding("money_day", _MONEY_KEY, ", ".join(_MONEY_KEY), MONEY)
_ADD_RECORDS = _adding("record_day", _DAY_KEY, "day, organization_id", RECORDS)


def add_money(connection: Connection, money: Mapping[MoneyKey, Sums]) -> None:
    """Adds to the sums that are there. What was priced later is added then; a correction may be negative."""
    _add(connection, _ADD_MONEY, money)


def add_records(connection: Connection, days: Mapping[DayKey, Sums]) -> None:
    """Adds to the sums that are there, like `add_money`."""
    _add(connection, _ADD_RECORDS, days)


def _add(connection: Connection, statement: str, rows: Mapping[MoneyKey, Sums] | Mapping[DayKey, Sums]) -> None:
    if rows:
        columns = zip(*((*key, *sums) for key, sums in rows.items()), strict=True)
        connection.execute(statement.encode(), [list(column) for column in columns])
