"""Records that no price was in force for. Works inside its caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

# Only what the SQL below needs; the constraints are in the migrations.
_metadata = MetaData(schema="ledger")
_usage_record = Table(
    "usage_record",
    _metadata,
    Column("organization_id", Uuid),
    Column("request_id", Uuid),
    Column("project_id", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("start_time", DateTime(timezone=True)),
    Column("unpriced", Boolean),
)
_organization = Table(
    "organization",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("retention_days", Integer),
    Column("retention_floor", DateTime(timezone=True)),
    schema="reporting",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedRecord:
    """What an operator needs to publish the price that is missing."""

    organization_id: UUID
    request_id: UUID
    project_id: str
    provider: str
    model: str
    start_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedFilter:
    """Which records to list. None means all."""

    organization_id: UUID | None
    provider: str | None
    model: str | None


async def unpriced_records(
    connection: AsyncConnection, wanted: UnpricedFilter, *, after: UUID | None, limit: int, now: datetime
) -> list[UnpricedRecord]:
    """Up to `limit` records in the order of their ids, after one of them. Records past their retention are not seen."""
    record, organization = _usage_record.c, _organization.c
    moment = literal(now, DateTime(timezone=True))
    kept_since = func.ledger.kept_since(moment, organization.retention_days, organization.retention_floor)
    statement = (
        select(
            record.organization_id,
            record.request_id,
            record.project_id,
            record.provider,
            record.model,
            record.start_time,
        )
        .join(_organization, organization.organization_id == record.organization_id)
        .where(record.unpriced, record.start_time >= kept_since)
        .order_by(record.request_id)
        .limit(limit)
    )
    for column, value in (
        (record.organization_id, wanted.organization_id),
        (record.provider, wanted.provider),
        (record.model, wanted.model),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if after is not None:
        statement = statement.where(record.request_id > after)
    return [UnpricedRecord(**row) for row in (await connection.execute(statement)).mappings()]
