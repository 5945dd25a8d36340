"""The SQL of the activity family. Sums come from hourly figures; what hours of UTC cannot tell apart, from detail."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    ColumnElement,
    FromClause,
    Row,
    Select,
    String,
    TableClause,
    all_,
    any_,
    case,
    cast,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from services.reporting.periods import Timeline
from services.reporting.record_ids import highest_id, lowest_id
from services.reporting.retention import figures_kept_since
from services.reporting.summaries import FIGURES, Dimension, Figures, FiguresRow
from services.reporting.view import View
from services.reporting.views import cost_line, organization, usage_hour, usage_record

MOMENTS = ARRAY(TIMESTAMP(timezone=True))
_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")
_LINE_SUFFIX = "_cost_pico"
_COLUMN_OF_GROUP = {Dimension.API_KEY: "api_key_id", Dimension.WORKFLOW: "workflow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityQuery:
    """Which calls to sum, and how."""

    view: View
    timeline: Timeline
    dimension: Dimension
    # Retention counts back from here.
    as_of: datetime

    def selects(self) -> list[Select[Any]]:
        """Every call of the timeline is in exactly one of these."""
        if not self.timeline.periods:
            return []
        if not self.timeline.split_hours:
            return [self._from_hours()]
        return [self._from_hours(), self._from_detail()]

    def _from_hours(self) -> Select[Any]:
        sums = [func.sum(usage_hour.c[name]).label(name) for name in FIGURES]
        hour = usage_hour.c.hour
        return self._grouped(usage_hour, usage_hour, hour, sums).where(
            hour >= self.timeline.start,
            hour < self.timeline.end,
            hour != all_(literal(self.timeline.split_hours, MOMENTS)),
        )

    def _from_detail(self) -> Select[Any]:
        start_time = usage_record.c.start_time
        lines = _lines_of_record()
        source = usage_record.join(lines, true())
        return self._grouped(source, usage_record, start_time, _sums_of_detail(lines)).where(
            start_time >= self.timeline.start,
            start_time < self.timeline.end,
            # Says nothing new, and is what the detail is indexed by.
            usage_record.c.request_id.between(lowest_id(self.timeline.start), highest_id(self.timeline.end)),
            func.date_trunc("hour", start_time, "UTC") == any_(literal(self.timeline.split_hours, MOMENTS)),
        )

    def _grouped(
        self, source: FromClause, view: TableClause, moment: ColumnElement[Any], sums: Sequence[ColumnElement[Any]]
    ) -> Select[Any]:
        columns = view.c
        group_column = _COLUMN_OF_GROUP.get(self.dimension)
        group = cast(columns[group_column], String) if group_column else literal("")
        period = func.width_bucket(moment, literal(self.timeline.boundaries, MOMENTS)) - 1
        keys = (
            period.label("period"),
            columns.funding.label("funding"),
            columns.model.label("model"),
            columns.provider.label("provider"),
            group.label("group_id"),
        )
        return (
            select(*keys, *sums)
            .select_from(source.join(organization, organization.c.organization_id == columns.organization_id))
            .where(moment >= figures_kept_since(self.as_of), *self._filters(columns))
            .group_by("period", "funding", "model", "provider", "group_id")
        )

    def _filters(self, columns: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[bool]]:
        return [columns[name] == value for name, value in asdict(self.view).items() if value is not None]


def figures_row_from_row(row: Row[Any]) -> FiguresRow:
    values: Sequence[Any] = row
    period, funding, model, provider, group, *figures = values
    return FiguresRow(
        period=period,
        funding=funding,
        model=model,
        provider=provider,
        group=group,
        figures=Figures._make(map(int, figures)),
    )


def _sums_of_detail(lines: FromClause) -> list[ColumnElement[Any]]:
    """Every figure in its order, as the ledger defines them for an hour."""
    status = usage_record.c.status
    counts = {
        "request_count": func.count(),
        "success_count": func.count().filter(status.between(200, 299)),
        "client_error_count": func.count().filter(status.between(400, 499)),
        "cache_count": func.count().filter(usage_record.c.cache_hit),
    }
    own = {name: func.sum(usage_record.c[name]) for name in (*_TOKENS, "saved_pico", "charged_pico")}
    money = {column.name: func.sum(column) for column in lines.c}
    sums = counts | own | money
    return [func.coalesce(sums[name], 0).label(name) for name in FIGURES]


def _lines_of_record() -> FromClause:
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
            cost_line.c.organization_id == usage_record.c.organization_id,
            cost_line.c.request_id == usage_record.c.request_id,
        )
        .correlate(usage_record)
        .lateral("lines")
    )
