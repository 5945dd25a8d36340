"""Records that no price was in force for, and the lines they get later. Works inside its caller's transaction."""

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.rows import namedtuple_row

from services.ledger.pricing import CostLine, Funding, Line, Outcome, OutputImages, PricedCall
from services.ledger.storage.usage.usage import day_of_id
from services.ledger.usage.records import Endpoint, PricedRecord, RecordedUsage, RecordFlag, UsageRecord, UsageSource
from services.ledger.usage.rollups import HourKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLAIN_QUANTITIES = RecordedUsage._fields[:-2]


class UnpricedPlace(NamedTuple):
    """Where a record without a price lies."""

    request_id: str
    organization_id: str
    request_day: date
    provider: str
    model: str
    start_time: datetime


# In the order of the index that holds nothing but them. What its organization no longer sees is left as it is.
_FIND = """
    SELECT request_id::text, usage_record.organization_id::text, request_day, provider, model, start_time
      FROM ledger.usage_record
      JOIN reporting.organization ON organization.organization_id = usage_record.organization_id
     WHERE unpriced AND request_id > %(after)s
       AND start_time >= ledger.kept_since(%(now)s, organization.retention_days, organization.retention_floor)
     ORDER BY request_id LIMIT %(limit)s
"""
# Whoever holds one of them is pricing it, or letting it expire.
_LOCK = """
    SELECT usage_record.*
      FROM ledger.usage_record
      JOIN unnest(%s::uuid[], %s::date[], %s::uuid[]) AS place (organization_id, request_day, request_id)
     USING (organization_id, request_day, request_id)
     WHERE unpriced
     ORDER BY organization_id, request_id
       FOR UPDATE OF usage_record SKIP LOCKED
"""
_LOCK_HOURS = f"""
    SELECT {", ".join(f"usage_hour.{name}" for name in HourKey._fields)}
      FROM ledger.usage_hour
      JOIN unnest(
           %s::uuid[], %s::timestamptz[], %s::text[], %s::uuid[], %s::text[], %s::text[], %s::smallint[], %s::text[]
           ) AS hour_key ({", ".join(HourKey._fields)}) USING ({", ".join(HourKey._fields)})
     ORDER BY {", ".join(HourKey._fields)} FOR UPDATE OF usage_hour
"""  # noqa: S608 columns of ours
_PRICE = """
    UPDATE ledger.usage_record
       SET unpriced = false, cost_pico = %s, saved_pico = %s, charged_pico = %s, price_version_id = %s, discount = %s,
           line = %s, line_quantity = %s, line_unit_price = %s, line_discount = %s, line_cost_pico = %s,
           line_list_cost_pico = %s, line_charged = %s
     WHERE organization_id = %s::uuid AND request_id = %s::uuid AND request_day = %s AND unpriced
"""


def find_unpriced(connection: Connection, after: UUID, limit: int, now: datetime) -> list[UnpricedPlace]:
    """Some of the records that are seen and have no price, in the order of their ids."""
    rows = connection.execute(_FIND, {"after": after, "limit": limit, "now": now})
    return [UnpricedPlace(*row) for row in rows]


def lock_unpriced(connection: Connection, places: Collection[UnpricedPlace]) -> list[PricedRecord]:
    """Those that are still there and still without a price, as they are, until the transaction ends."""
    columns = (
        [place.organization_id for place in places],
        [place.request_day for place in places],
        [place.request_id for place in places],
    )
    return [_from_row(row) for row in connection.cursor(row_factory=namedtuple_row).execute(_LOCK, columns)]


def lock_hours(connection: Connection, keys: Iterable[HourKey]) -> set[HourKey]:
    """Which of these hours are there; they stay until the transaction ends."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    if not columns:
        return set()
    rows = connection.execute(_LOCK_HOURS, columns)
    return {HourKey(str(row[0]), row[1], row[2], str(row[3]), *row[4:]) for row in rows}


def write_lines(connection: Connection, records: Iterable[PricedRecord]) -> None:
    """Gives records, which must be locked, their lines."""
    rows = [
        (
            one.priced.cost_pico,
            one.priced.saved_pico,
            one.priced.charged_pico,
            one.price_version_id,
            one.discount,
            *_line_columns(one.priced),
            one.record.organization_id,
            one.record.request_id,
            one.record.start_time.date(),
        )
        for one in records
    ]
    connection.cursor().executemany(_PRICE, rows)


def _line_columns(priced: PricedCall) -> tuple[list[Any], ...]:
    lines = priced.lines
    return (
        [int(line.line) for line in lines],
        [line.quantity for line in lines],
        [line.unit_price for line in lines],
        [line.discount for line in lines],
        [line.cost_pico for line in lines],
        [line.list_cost_pico for line in lines],
        [line.charged for line in lines],
    )


def _from_row(row: Any) -> PricedRecord:
    record = UsageRecord(
        request_id=str(row.request_id),
        request_day=day_of_id(str(row.request_id)),
        organization_id=str(row.organization_id),
        project_id=row.project_id,
        api_key_id=str(row.api_key_id),
        endpoint=Endpoint(row.endpoint),
        requested_model=row.requested_model,
        model=row.model,
        provider=row.provider,
        start_us=(row.start_time - _EPOCH) // _MICROSECOND,
        latency_ms=row.latency_ms,
        time_to_first_token_ms=row.time_to_first_token_ms,
        outcome=Outcome(row.outcome),
        status=row.status,
        error_type=row.error_type,
        funding=Funding(row.funding),
        usage=None if row.input_tokens is None else _usage(row),
        usage_source=UsageSource(row.usage_source),
        service_tier=row.service_tier,
        streamed=row.streamed,
        cache_hit=row.cache_hit,
        workflow=row.workflow,
        metadata=row.metadata,
        attempts=tuple(row.attempts),
        flags=tuple(RecordFlag(flag) for flag in row.flags),
        payload_retained=row.payload_retained,
    )
    priced = PricedCall(_lines(row), None, row.saved_pico, row.charged_pico, True)
    return PricedRecord(record, priced, row.price_version_id, Decimal(row.discount))


def _usage(row: Any) -> RecordedUsage:
    kinds = tuple(OutputImages(kind["size"], kind["quality"], kind["count"]) for kind in row.output_image_kinds or ())
    quantities = [getattr(row, name) for name in _PLAIN_QUANTITIES]
    return RecordedUsage._make((*quantities, row.cached_input_image_tokens, kinds))


def _lines(row: Any) -> tuple[CostLine, ...]:
    columns = (
        map(Line, row.line),
        row.line_quantity,
        row.line_unit_price,
        row.line_discount,
        row.line_cost_pico,
        row.line_list_cost_pico,
        row.line_charged,
    )
    return tuple(CostLine(*values) for values in zip(*columns, strict=True))
