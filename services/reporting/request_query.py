"""The SQL of single calls: lists, newest first, and one call with its cost lines."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, not_, select

from services.reporting.places import Columns, Places
from services.reporting.record_ids import lowest_id
from services.reporting.request_filter import RequestFilter
from services.reporting.view import View
from services.reporting.views import PAYLOAD, SUMMARY, USAGE_RECORD, cost_line, payload, usage_record

_SUMMARY = [usage_record.c[name] for name in SUMMARY]
_WHOLE = [usage_record.c[name] for name in USAGE_RECORD]


def one_page(calls: RequestFilter, places: Places, since: datetime, before: UUID | None, row_count: int) -> Select[Any]:
    """The first calls, newest first; those before an id, if one is given."""
    statement = select(*_SUMMARY).where(*_matching(calls), *_kept(places, since))
    if before is not None:
        statement = statement.where(usage_record.c.request_id < before)
    # Ids begin with the time of the call.
    return statement.order_by(usage_record.c.request_id.desc()).limit(row_count)


def count_of_all_pages(calls: RequestFilter, places: Places, since: datetime) -> Select[int]:
    return select(func.count()).select_from(usage_record).where(*_matching(calls), *_kept(places, since))


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
            columns.unit_price,
            columns.discount,
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


def _matching(calls: RequestFilter) -> list[ColumnElement[bool]]:
    exact = {
        "provider": calls.provider,
        "model": calls.model,
        "workflow": calls.workflow,
        "status": calls.status,
    }
    conditions = _within(calls.view)
    conditions += [usage_record.c[name] == value for name, value in exact.items() if value is not None]
    if calls.succeeded is not None:
        is_2xx = usage_record.c.status.between(200, 299)
        conditions.append(is_2xx if calls.succeeded else not_(is_2xx))
    return conditions


def _within(view: View) -> list[ColumnElement[bool]]:
    return [usage_record.c[name] == value for name, value in asdict(view).items() if value is not None]


def _kept(places: Places, since: datetime) -> list[ColumnElement[bool]]:
    """What the plan still shows. The id says nothing new, and is what the detail is indexed by."""
    columns = usage_record.c
    return [columns.start_time >= since, places.since(columns, since), columns.request_id >= lowest_id(since)]
