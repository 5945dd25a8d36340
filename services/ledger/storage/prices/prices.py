"""The price book in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    and_,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ledger.prices.price_book import Discount, PriceVersion
from services.ledger.storage.prices.price_rows import (
    Values,
    condition_rows,
    discount_from_row,
    discount_to_row,
    price_rows,
    rates_by_condition,
    version_from_row,
    version_to_row,
)

# Only what the SQL below needs; the constraints are in the migrations.
_metadata = MetaData(schema="ledger")
_TIME = DateTime(timezone=True)
_PRICE = Numeric(28, 18)

price_book = Table(
    "price_book",
    _metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("revision", BigInteger),
    Column("last_version_id", BigInteger),
    Column("last_discount_id", BigInteger),
)
price_version = Table(
    "price_version",
    _metadata,
    Column("version_id", BigInteger, primary_key=True, autoincrement=False),
    Column("provider", Text),
    Column("model", Text),
    Column("valid_from", _TIME),
    Column("source", Text),
    Column("tokens_per_input_image", Integer),
    Column("create_time", _TIME),
)
price_condition = Table(
    "price_condition",
    _metadata,
    Column("version_id", BigInteger, primary_key=True),
    Column("condition_number", SmallInteger, primary_key=True),
    Column("is_tier", Boolean),
    Column("up_to_tokens", BigInteger),
    Column("service_tier", Text),
    Column("multiplier", _PRICE),
    Column("window_start_minute", SmallInteger),
    Column("window_end_minute", SmallInteger),
    Column("window_weekdays", ARRAY(SmallInteger)),
)
price = Table(
    "price",
    _metadata,
    Column("version_id", BigInteger, primary_key=True),
    Column("condition_number", SmallInteger, primary_key=True),
    Column("unit", SmallInteger, primary_key=True),
    Column("size", Text, primary_key=True),
    Column("quality", Text, primary_key=True),
    Column("price", _PRICE),
)
discount = Table(
    "discount",
    _metadata,
    Column("discount_id", BigInteger, primary_key=True, autoincrement=False),
    Column("organization_id", Uuid),
    Column("provider", Text),
    Column("model", Text),
    Column("fraction", _PRICE),
    Column("valid_from", _TIME),
    Column("valid_to", _TIME),
    Column("create_time", _TIME),
)
catalogue_load = Table(
    "catalogue_load", _metadata, Column("source", Text, primary_key=True), Column("load_time", _TIME)
)


class PriceStore:
    """Lives as long as its transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def revision(self) -> int:
        """Rises with every change of prices or discounts."""
        revision: int = (await self._connection.execute(select(price_book.c.revision))).scalar_one()
        return revision

    async def lock(self) -> None:
        """Lets nobody else publish until the transaction ends, and raises the revision."""
        await self._connection.execute(update(price_book).values(revision=price_book.c.revision + 1))

    async def versions(self) -> list[PriceVersion]:
        """All of them, in the order of publication. Some thousand; they are read when something was published."""
        return await self._versions_where(true())

    async def latest_version(self, provider: str, model: str, valid_from: datetime, source: str) -> PriceVersion | None:
        """The version of this source that was published last for this very moment."""
        same = and_(
            price_version.c.provider == provider,
            price_version.c.model == model,
            price_version.c.valid_from == valid_from,
            price_version.c.source == source,
        )
        newest = select(func.max(price_version.c.version_id)).where(same).scalar_subquery()
        versions = await self._versions_where(price_version.c.version_id == newest)
        return versions[0] if versions else None

    async def _versions_where(self, condition: ColumnElement[bool]) -> list[PriceVersion]:
        chosen = select(price_version.c.version_id).where(condition)
        versions, conditions, prices = [
            (
                await self._connection.execute(
                    select(table).where(table.c.version_id.in_(chosen)).order_by(*table.primary_key)
                )
            ).all()
            for table in (price_version, price_condition, price)
        ]
        rates = rates_by_condition(prices)
        by_version = groupby(conditions, key=attrgetter("version_id"))
        conditions_of = {version_id: list(group) for version_id, group in by_version}
        return [version_from_row(row, conditions_of[row.version_id], rates) for row in versions]

    async def add_versions(self, drafts: Sequence[PriceVersion], now: datetime) -> list[PriceVersion]:
        """Stores new versions under numbers of their own, whatever numbers the drafts have. Needs `lock`."""
        statement = (
            update(price_book)
            .values(last_version_id=price_book.c.last_version_id + len(drafts))
            .returning(price_book.c.last_version_id)
        )
        last = (await self._connection.execute(statement)).scalar_one()
        versions = [
            PriceVersion(version_id, draft.provider, draft.model, draft.valid_from, draft.source, draft.prices)
            for version_id, draft in enumerate(drafts, start=last - len(drafts) + 1)
        ]
        await self._insert(price_version, (version_to_row(version, now) for version in versions))
        await self._insert(price_condition, (row for version in versions for row in condition_rows(version)))
        await self._insert(price, (row for version in versions for row in price_rows(version)))
        return versions

    async def discounts(self) -> list[Discount]:
        """All of them, ended ones too, in the order of creation."""
        rows = (await self._connection.execute(select(discount).order_by(discount.c.discount_id))).all()
        return [discount_from_row(row) for row in rows]

    async def add_discount(self, draft: Discount, now: datetime) -> Discount:
        """Stores a new discount under a number of its own, whatever number the draft has. Needs `lock`."""
        statement = (
            update(price_book)
            .values(last_discount_id=price_book.c.last_discount_id + 1)
            .returning(price_book.c.last_discount_id)
        )
        discount_id = (await self._connection.execute(statement)).scalar_one()
        row = discount_to_row(draft) | {"discount_id": discount_id, "create_time": now}
        stored = await self._connection.execute(insert(discount).values(row).returning(discount))
        return discount_from_row(stored.one())

    async def newest_discount(
        self, organization_id: str | None, provider: str | None, model: str | None
    ) -> Discount | None:
        """The discount that was given last for this very target, ended or not."""
        statement = (
            select(discount)
            .where(
                discount.c.organization_id.is_not_distinct_from(
                    None if organization_id is None else UUID(organization_id)
                ),
                discount.c.provider.is_not_distinct_from(provider),
                discount.c.model.is_not_distinct_from(model),
            )
            .order_by(discount.c.discount_id.desc())
            .limit(1)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else discount_from_row(row)

    async def find_discount(self, discount_id: int) -> Discount | None:
        row = (await self._connection.execute(select(discount).where(discount.c.discount_id == discount_id))).first()
        return None if row is None else discount_from_row(row)

    async def end_discount(self, discount_id: int, valid_to: datetime) -> Discount:
        statement = update(discount).where(discount.c.discount_id == discount_id).values(valid_to=valid_to)
        return discount_from_row((await self._connection.execute(statement.returning(discount))).one())

    async def has_catalogue(self, source: str) -> bool:
        found = await self._connection.execute(select(catalogue_load.c.source).where(catalogue_load.c.source == source))
        return found.first() is not None

    async def add_catalogue(self, source: str, now: datetime) -> None:
        statement = insert_or(catalogue_load).values(source=source, load_time=now)
        await self._connection.execute(statement.on_conflict_do_nothing())

    async def _insert(self, table: Table, rows: Iterable[Values]) -> None:
        values = list(rows)
        if values:
            await self._connection.execute(insert(table), values)
