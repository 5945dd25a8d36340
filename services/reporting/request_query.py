"""The SQL of single calls: lists, newest first, and one call with its cost lines."""

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, String, cast, func, literal, not_, select
from sqlalchemy.dialects.postgresql import JSONB

from services.reporting.places import Columns, Places
from services.reporting.record_ids import highest_id, lowest_id
from services.reporting.request_filter import RequestFilter
from services.reporting.view import View
from services.reporting.views import PAYLOAD, SUMMARY, USAGE_RECORD, cost_line, payload, usage_record

_SUMMARY = [usage_record.c[name] for name in SUMMARY]
# The driver takes every numeric for a whole number. What is not is read as text.
_DISCOUNT = cast(usage_record.c.discount, String).label("discount")
_WHOLE = [_DISCOUNT if name == "discount" else usage_record.c[name] for name in USAGE_RECORD]


class Listing(NamedTuple):
    """Which calls are listed, where they lie, and from when on they are shown."""

    calls: RequestFilter
    places: Places
    since: datetime


def one_page(listing: Listing, before: UUID | None, row_count: int, offset: int = 0) -> Select[Any]:
    """The first calls, newest first; those before an id, if one is given, or after so many."""
    statement = select(*_SUMMARY).where(*matching(listing))
    if before is not None:
        statement = statement.where(usage_record.c.request_id < before)
    # Ids begin with the time of the call.
    return statement.order_by(usage_record.c.request_id.desc()).offset(offset or None).limit(row_count)


def count_of_all_pages(listing: Listing, before: UUID | None = None) -> Select[int]:
    statement = select(func.count()).select_from(usage_record).where(*matching(listing))
    return statement if before is None else statement.where(usage_record.c.request_id < before)


def one_request(view: View, places: Places, since: datetime, request_id: UUID) -> Select[Any]:
    """The call of this id, and where it lies."""
    place = (usage_record.c.request_day, usage_record.c.retention_class)
    return select(*_WHOLE, *place).where(*_within(view), *_kept(places, since), usage_record.c.request_id == request_id)


def lines_of_request(row: Row[Any]) -> Select[Any]:
    """The cost lines of one call, in their order."""
    columns = cost_line.c
    return (
        select(
            columns.line,
            columns.quantity,
            cast(columns.unit_price, String).label("unit_price"),
            cast(columns.discount, String).label("discount"),
            columns.cost_pico,
            columns.list_cost_pico,
            columns.charged,
        )
        .where(*_of_request(columns, row))
        .order_by(columns.line_number)
    )


def payload_of_request(row: Row[Any]) -> Select[Any]:
    """What is retained of one call."""
    return select(*(payload.c[name] for name in PAYLOAD)).where(*_of_request(payload.c, row))


def _of_request(columns: Columns, row: Row[Any]) -> list[ColumnElement[bool]]:
    place = Places((row.retention_class,)).between(columns, row.request_day, row.request_day)
    return [place, columns["organization_id"] == row.organization_id, columns["request_id"] == row.request_id]


def matching(listing: Listing) -> list[ColumnElement[bool]]:
    """What tells the listed calls from others."""
    calls, columns = listing.calls, usage_record.c
    conditions = [*_within(calls.view), *_kept(listing.places, listing.since)]
    if calls.until is not None:
        conditions += [columns.start_time < calls.until, columns.request_id <= highest_id(calls.until)]
    if calls.status is not None:
        conditions.append(columns.status == calls.status)
    if calls.succeeded is not None:
        is_2xx = columns.status.between(200, 299)
        conditions.append(is_2xx if calls.succeeded else not_(is_2xx))
    if calls.cached is not None:
        conditions.append(columns.cache_hit == calls.cached)
    if calls.latency_ms_min is not None:
        conditions.append(columns.latency_ms >= calls.latency_ms_min)
    if calls.cost_pico_min is not None:
        conditions.append(columns.cost_pico >= calls.cost_pico_min)
    if calls.metadata:
        # As text, because COPY is given parameters as they are.
        conditions.append(columns.metadata.op("@>")(cast(literal(json.dumps(dict(calls.metadata)), String), JSONB)))
    return conditions


def _within(view: View) -> list[ColumnElement[bool]]:
    return [usage_record.c[name] == value for name, value in view.filters.items()]


def _kept(places: Places, since: datetime) -> list[ColumnElement[bool]]:
    """What the plan still shows. The id says nothing new, and is what the detail is indexed by."""
    columns = usage_record.c
    return [columns.start_time >= since, places.since(columns, since), columns.request_id >= lowest_id(since)]
