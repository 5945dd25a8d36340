"""A day's money and a day's records, per organization, in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Mapping
from datetime import date

from psycopg import Connection

from services.ledger.daily import MONEY, RECORDS, DayKey, MoneyKey, Sums
from services.ledger.storage import copy_binary
from services.ledger.storage.copy_binary import FixedFields

_EPOCH_DAY = date(1970, 1, 1)
_KEY = ", ".join(MoneyKey._fields)
_COLUMNS = f"{_KEY}, {', '.join(MONEY)}"
_CREATE_STAGING = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS money_day_staging (
        organization_id UUID, day DATE, provider TEXT, model TEXT, funding SMALLINT, line SMALLINT, charged BOOLEAN,
        price_version_id BIGINT, discount NUMERIC, line_count BIGINT,
        {", ".join(f"{name} NUMERIC" for name in MONEY[1:])}
    ) ON COMMIT DELETE ROWS
"""
_STAGE = f"COPY pg_temp.money_day_staging ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
# Sorted, so that two batches lock the rows they share in the same order.
_ADD_MONEY = f"""
    INSERT INTO ledger.money_day ({_COLUMNS})
    SELECT {_COLUMNS} FROM pg_temp.money_day_staging ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE
       SET {", ".join(f"{name} = money_day.{name} + excluded.{name}" for name in MONEY)}
"""  # noqa: S608 columns of ours
_ADD_RECORDS = f"""
    INSERT INTO ledger.record_day (organization_id, day, {", ".join(RECORDS)})
    SELECT organization_id, day, {", ".join(RECORDS)}
      FROM unnest(
               %s::uuid[], %s::date[], %s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[]
           ) AS added (organization_id, day, {", ".join(RECORDS)})
     ORDER BY day, organization_id
    ON CONFLICT (day, organization_id) DO UPDATE
       SET {", ".join(f"{name} = record_day.{name} + excluded.{name}" for name in RECORDS)}
"""  # noqa: S608 columns of ours
_ROW_HEAD = copy_binary.row_head(len(MoneyKey._fields) + len(MONEY))
_PLACE_FIELDS = FixedFields("uuid", "date")
_LINE_FIELDS = FixedFields("int2", "int2", "bool", "int8")
_INT8 = FixedFields("int8")


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    connection.execute(_CREATE_STAGING)


def add_money(connection: Connection, money: Mapping[MoneyKey, Sums]) -> None:
    """Adds to the sums that are there. What is priced later is added then."""
    if not money:
        return
    rows = [copy_binary.BEGIN]
    for key, (line_count, *amounts) in money.items():
        rows += (
            _ROW_HEAD,
            _PLACE_FIELDS(
                copy_binary.uuid_bytes(key.organization_id), copy_binary.date_value((key.day - _EPOCH_DAY).days)
            ),
            copy_binary.text_field(key.provider),
            copy_binary.text_field(key.model),
            _LINE_FIELDS(key.funding, key.line, key.charged, key.price_version_id),
            copy_binary.numeric_field(key.discount),
            _INT8(line_count),
            *map(copy_binary.integer_field, amounts),
        )
    rows.append(copy_binary.END)
    with connection.cursor().copy(_STAGE) as copy:
        copy.write(b"".join(rows))
    connection.execute(_ADD_MONEY)


def add_records(connection: Connection, days: Mapping[DayKey, Sums]) -> None:
    """Adds to the sums that are there, like `add_money`."""
    if days:
        columns = zip(*((*key, *sums) for key, sums in days.items()), strict=True)
        connection.execute(_ADD_RECORDS, [list(column) for column in columns])
