"""The tables of alerts, as far as the SQL beside this needs them. Their constraints are in the migrations."""

from typing import Any

from sqlalchemy import (
    BigInteger,
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

_metadata = MetaData(schema="ledger")
_TIME = DateTime(timezone=True)


def _terms() -> tuple[Column[Any], ...]:
    return (
        Column("metric", SmallInteger),
        Column("percentile", SmallInteger),
        Column("comparison", SmallInteger),
        Column("threshold", Numeric),
        Column("window_minutes", Integer),
        Column("request_count_min", Integer),
    )


alert_rule = Table(
    "alert_rule",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("alert_rule_id", Uuid, primary_key=True),
    Column("project_id", Text),
    Column("display_name", Text),
    Column("paused", Boolean),
    Column("webhook_url", Text),
    Column("sealed_webhook_secret", LargeBinary),
    Column("create_time", _TIME),
    Column("update_time", _TIME),
    Column("state", SmallInteger),
    Column("state_time", _TIME),
    Column("value", Numeric),
    Column("evaluate_time", _TIME),
    Column("evaluation_error", Text),
    Column("due_time", _TIME),
    *_terms(),
)
alert = Table(
    "alert",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("alert_id", Uuid, primary_key=True),
    Column("alert_rule_id", Uuid),
    Column("project_id", Text),
    Column("display_name", Text),
    Column("state", SmallInteger),
    Column("value", Numeric),
    Column("request_count", BigInteger),
    Column("window_start_time", _TIME),
    Column("window_end_time", _TIME),
    Column("create_time", _TIME),
    *_terms(),
)
alert_delivery = Table(
    "alert_delivery",
    _metadata,
    Column("organization_id", Uuid, primary_key=True),
    Column("alert_id", Uuid, primary_key=True),
    Column("alert_rule_id", Uuid),
    Column("state", SmallInteger),
    Column("attempt_count", Integer),
    Column("attempt_time", _TIME),
    Column("next_attempt_time", _TIME),
    Column("error", Text),
)
# What shows how far an organization sees back.
organization = Table(
    "organization",
    MetaData(schema="reporting"),
    Column("organization_id", Uuid, primary_key=True),
    Column("retention_days", Integer),
    Column("retention_floor", _TIME),
)
