"""A day's money and a day's records, per organization, in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from psycopg import Connection

from services.ledger.storage import copy_binary
from services.ledger.storage.array_literals import array_of
from services.ledger.storage.copy_binary import FixedFields
from services.ledger.usage.daily import MONEY, RECORDS, DayKey, MoneyKey, Sums

_EPOCH_DAY = date(1970, 1, 1)
_KEY = ", ".join(MoneyKey._fields)
_COLUMNS = f"{_KEY}, {', '.join(MONEY)}"
# Columns of fixed width come first: they are packed as one.
_CREATE_STAGING = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS money_day_staging (
        organization_id UUID, day DATE, funding SMALLINT, line SMALLINT, charged BOOLEAN, price_version_id BIGINT,
        {", ".join(f"{name} BIGINT" for name in MONEY)},
        provider TEXT, model TEXT, discount NUMERIC
    ) ON COMMIT DELETE ROWS
"""
_STAGE = "COPY pg_temp.money_day_staging FROM STDIN (FORMAT BINARY)"
_CLEAR_STAGING = "TRUNCATE pg_temp.money_day_staging"
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
_FIXED_FIELDS = FixedFields("uuid", "date", "int2", "int2", "bool", "int8", *["int8"] * len(MONEY))


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    connection.execute(_CREATE_STAGING)


def add_money(connection: Connection, money: Mapping[MoneyKey, Sums]) -> None:
    """Adds to the sums that are there. What is priced later is added then."""
    if money:
        write_money(connection, pack_money(money))


def pack_money(money: Mapping[MoneyKey, Sums]) -> list[bytes]:
    """The sums as `write_money` takes them. A batch's sums may be larger than any of its amounts."""
    return [_packed_money(one) for one in copy_binary.in_rounds(money)]


def _packed_money(money: Mapping[MoneyKey, Sequence[int]]) -> bytes:
    rows = [copy_binary.BEGIN]
    for key, sums in money.items():
        rows += (
            _ROW_HEAD,
            _FIXED_FIELDS(
                copy_binary.uuid_bytes(key.organization_id),
                copy_binary.date_value((key.day - _EPOCH_DAY).days),
                key.funding,
                key.line,
                key.charged,
                key.price_version_id,
                *sums,
            ),
            copy_binary.text_field(key.provider),
            copy_binary.text_field(key.model),
            copy_binary.numeric_field(key.discount),
        )
    rows.append(copy_binary.END)
    return b"".join(rows)


def write_money(connection: Connection, rounds: Iterable[bytes]) -> None:
    for number, packed in enumerate(rounds):
        if number:
            connection.execute(_CLEAR_STAGING)
        with connection.cursor().copy(_STAGE) as copy:
            copy.write(packed)
        connection.execute(_ADD_MONEY)


def add_records(connection: Connection, days: Mapping[DayKey, Sums]) -> None:
    """Adds to the sums that are there, like `add_money`."""
    if days:
        columns = zip(*((*key, *sums) for key, sums in days.items()), strict=True)
        connection.execute(_ADD_RECORDS, [array_of(column) for column in columns])
