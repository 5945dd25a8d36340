"""The SQL of single calls: lists, newest first, and one call with its cost lines."""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, not_, select, tuple_

from services.common.uuid7 import time_of
from services.reporting.periods import DAY
from services.reporting.request_filter import RequestFilter
from services.reporting.view import View
from services.reporting.views import SUMMARY, USAGE_RECORD, cost_line, usage_record

_SUMMARY = [usage_record.c[name] for name in SUMMARY]
_WHOLE = [usage_record.c[name] for name in USAGE_RECORD]
_NEWEST_FIRST = (usage_record.c.request_day.desc(), usage_record.c.request_id.desc())
_UUID_VERSION = 7


@dataclass(frozen=True, slots=True)
class Position:
    """Where a call stands in a list: the day it is kept under, then its id, which begins with its time."""

    request_day: date
    request_id: UUID


def one_page(calls: RequestFilter, since: datetime, after: Position | None, row_count: int) -> Select[Any]:
    """The first calls, newest first; those after a position, if one is given."""
    statement = select(*_SUMMARY).where(*_matching(calls), *_kept(since)).order_by(*_NEWEST_FIRST).limit(row_count)
    if after is None:
        return statement
    position = tuple_(usage_record.c.request_day, usage_record.c.request_id)
    # The first condition says nothing new, and lets the database skip whole days.
    return statement.where(
        usage_record.c.request_day <= after.request_day, position < tuple_(after.request_day, after.request_id)
    )


def count_of_all_pages(calls: RequestFilter, since: datetime) -> Select[int]:
    return select(func.count()).select_from(usage_record).where(*_matching(calls), *_kept(since))


def one_request(view: View, since: datetime, request_id: UUID) -> Select[Any] | None:
    """The call of this id, or None for an id that no call can have: every call's id is a UUIDv7."""
    if request_id.version != _UUID_VERSION:
        return None
    day = time_of(request_id).date()
    return select(*_WHOLE).where(
        *_within(view),
        *_kept(since),
        # An id from a clock that ran ahead is kept under the day it was received on.
        usage_record.c.request_day.in_([day - DAY, day]),
        usage_record.c.request_id == request_id,
    )


def lines_of_request(organization_id: UUID, position: Position) -> Select[Any]:
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
        .where(
            columns.organization_id == organization_id,
            columns.request_day == position.request_day,
            columns.request_id == position.request_id,
        )
        .order_by(columns.line_number)
    )


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


def _kept(since: datetime) -> list[ColumnElement[bool]]:
    """What the plan still shows. The day skips what cannot be; it is that of the id, give or take minutes."""
    earliest_day = (since.astimezone(UTC) - DAY).date()
    return [usage_record.c.request_day >= earliest_day, usage_record.c.start_time >= since]
