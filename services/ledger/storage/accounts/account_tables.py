"""The tables of accounts, as far as the SQL beside this needs them. Their constraints are in the migrations."""

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

_metadata = MetaData(schema="ledger")
_TIME = DateTime(timezone=True)

organization = Table(
    "organization",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("display_name", Text),
    Column("plan", SmallInteger),
    Column("retention_days", Integer),
    Column("payload_retained", Boolean),
    Column("create_time", _TIME),
    Column("spending_limit_pico", Numeric),
    Column("spending_period", SmallInteger),
)
organization_plan = Table(
    "organization_plan",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("valid_from", _TIME, primary_key=True),
    Column("plan", SmallInteger),
    Column("retention_days", Integer),
)


def _rate_limit_columns(prefix: str = "") -> list[Column[Any]]:
    names = ("requests_per_minute", "tokens_per_minute", "concurrent_calls")
    return [Column(f"{prefix}{name}", Integer) for name in names]


project = Table(
    "project",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("mode", SmallInteger),
    Column("create_time", _TIME),
    Column("archive_time", _TIME),
    Column("provider_order", SmallInteger),
    Column("preferred_providers", ARRAY(Text)),
    Column("cache_seconds", Integer),
    Column("answer_format", SmallInteger),
    *_rate_limit_columns(),
    *_rate_limit_columns("end_user_"),
)
api_key = Table(
    "api_key",
    _metadata,
    Column("key_hash", LargeBinary, primary_key=True),
    Column("api_key_id", Uuid),
    Column("scope", SmallInteger),
    Column("organization_id", Uuid),
    Column("project_id", Text),
    Column("read_only", Boolean),
    Column("display_name", Text),
    Column("create_time", _TIME),
    Column("expire_time", _TIME),
    Column("revoke_time", _TIME),
    Column("spending_limit_pico", Numeric),
    Column("spending_period", SmallInteger),
    *_rate_limit_columns(),
)
provider_key = Table(
    "provider_key",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("sealed_secret", LargeBinary),
    Column("update_time", _TIME),
)


def _log_columns() -> tuple[Column[Any], ...]:
    return (
        Column("audit_id", Uuid, primary_key=True),
        Column("create_time", _TIME),
        Column("actor_scope", SmallInteger),
        Column("actor_api_key_id", Uuid),
        Column("action", Text),
        Column("subject", Text),
        Column("details", JSONB),
        Column("before", JSONB(none_as_null=True)),
    )


audit_log = Table("audit_log", _metadata, Column("organization_id", Uuid, primary_key=True), *_log_columns())
operator_audit_log = Table("operator_audit_log", _metadata, *_log_columns())
