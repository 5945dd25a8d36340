"""Single calls as figures, for what hours of UTC cannot tell apart."""

from datetime import date
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, case, cast, func, select, true
from sqlalchemy.sql.selectable import Subquery

from services.reporting.places import Places
from services.reporting.summaries import FIGURES
from services.reporting.views import FIGURES_KEY, cost_line, usage_record

_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")
_LINE_SUFFIX = "_cost_pico"
_REFUSED = 8  # tollgate.ledger.v1.Outcome


def figures_of_calls(places: Places, first_day: date, last_day: date) -> Subquery:
    """One row per call of these days, with the columns of an hour of figures and `start_time`."""
    lines = _lines_of_record(places.between(cost_line.c, first_day, last_day))
    figures = _figures(lines)
    keys = [usage_record.c[name] for name in FIGURES_KEY]
    return (
        select(usage_record.c.start_time, *keys, *(figures[name].label(name) for name in ("refused_count", *FIGURES)))
        .select_from(usage_record.join(lines, true()))
        .where(places.between(usage_record.c, first_day, last_day))
        .subquery()
    )


def _figures(lines: FromClause) -> dict[str, ColumnElement[Any]]:
    """Every figure, as the ledger defines them for an hour."""
    status = usage_record.c.status
    counts = {
        "request_count": true(),
        "success_count": status.between(200, 299),
        "client_error_count": status.between(400, 499),
        "refused_count": usage_record.c.outcome == _REFUSED,
        "cache_count": usage_record.c.cache_hit,
    }
    own = {name: func.coalesce(usage_record.c[name], 0) for name in (*_TOKENS, "saved_pico", "charged_pico")}
    money = {column.name: func.coalesce(column, 0) for column in lines.c}
    figures: dict[str, ColumnElement[Any]] = {**own, **money}
    return figures | {name: cast(case((one, 1), else_=0), BigInteger) for name, one in counts.items()}


def _lines_of_record(place: ColumnElement[bool]) -> FromClause:
    """One row per record: its lines, summed by kind. An unpriced record may have a line, for its storage."""
    kinds = [name for name in FIGURES if name.endswith(_LINE_SUFFIX)]
    cost = cost_line.c.cost_pico
    sums = [
        func.sum(case((cost_line.c.line == name.removesuffix(_LINE_SUFFIX).upper(), cost))).label(name)
        for name in kinds
    ]
    return (
        select(*sums, func.sum(cost).label("cost_pico"))
        .where(
            place,
            cost_line.c.organization_id == usage_record.c.organization_id,
            cost_line.c.retention_class == usage_record.c.retention_class,
            cost_line.c.request_day == usage_record.c.request_day,
            cost_line.c.request_id == usage_record.c.request_id,
        )
        .correlate(usage_record)
        .lateral("lines")
    )
