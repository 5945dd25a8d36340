"""The SQL of the activity family: what periods add up to, and their breakdowns."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select

from services.reporting.figures_query import FiguresSource
from services.reporting.summaries import BREAKDOWN_FIGURES, FIGURES, Dimension, Figures, FiguresRow

_GROUP_COLUMN = {Dimension.API_KEY: "api_key_id", Dimension.WORKFLOW: "workflow"}
_TOTAL_KEYS = ("period", "funding")
_MODEL_KEYS = (*_TOTAL_KEYS, "model", "provider")


def totals(source: FiguresSource) -> Select[Any]:
    """Every figure, by period and funding."""
    return source.sums(_TOTAL_KEYS, FIGURES)


def by_model(source: FiguresSource) -> Select[Any]:
    """The figures of a breakdown, by model and provider."""
    return source.sums(_MODEL_KEYS, BREAKDOWN_FIGURES)


def by_group(source: FiguresSource, dimension: Dimension) -> Select[Any] | None:
    """The figures of a breakdown by key or workflow. None where models and providers say it all."""
    column = _GROUP_COLUMN.get(dimension)
    return None if column is None else source.sums((*_TOTAL_KEYS, column), BREAKDOWN_FIGURES)


def whole_groups(source: FiguresSource, dimension: Dimension) -> Select[Any]:
    """Every figure, by period, funding and everything that a dimension needs."""
    if dimension is Dimension.MODEL:
        return source.sums(_MODEL_KEYS, FIGURES)
    return source.sums((*_TOTAL_KEYS, _GROUP_COLUMN.get(dimension, "provider")), FIGURES)


def row_of_totals(row: Row[Any]) -> FiguresRow:
    period, funding, *figures = tuple(row)
    return FiguresRow(period=period, funding=funding, figures=Figures._make(map(int, figures)))


def row_of_model(row: Row[Any]) -> FiguresRow:
    period, funding, model, provider, *figures = tuple(row)
    return FiguresRow(period=period, funding=funding, model=model, provider=provider, figures=_breakdown(figures))


def row_of_group(row: Row[Any]) -> FiguresRow:
    period, funding, group, *figures = tuple(row)
    return FiguresRow(period=period, funding=funding, group=group, figures=_breakdown(figures))


def row_of_whole_group(dimension: Dimension, row: Row[Any]) -> FiguresRow:
    values = tuple(row)
    figures = Figures._make(map(int, values[-len(FIGURES) :]))
    period, funding, *names = values[: -len(FIGURES)]
    if dimension is Dimension.MODEL:
        return FiguresRow(period=period, funding=funding, model=names[0], provider=names[1], figures=figures)
    if dimension is Dimension.PROVIDER:
        return FiguresRow(period=period, funding=funding, provider=names[0], figures=figures)
    return FiguresRow(period=period, funding=funding, group=names[0], figures=figures)


def _breakdown(figures: Sequence[Any]) -> Figures:
    return Figures(**dict(zip(BREAKDOWN_FIGURES, map(int, figures), strict=True)))
