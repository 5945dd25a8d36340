"""The SQL of the activity family: what periods add up to, and their breakdowns."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from services.reporting.figures_query import FiguresSource, Statement
from services.reporting.summaries import (
    BREAKDOWN_FIGURES,
    FIGURES,
    OWN_KEY,
    OWN_KEY_FIGURES,
    Breakdown,
    Dimension,
    Figures,
    FiguresRow,
)

# The columns that a group is made of: its id, and its provider where it has one.
_GROUP = {
    Dimension.MODEL: ("model", "provider"),
    Dimension.API_KEY: ("api_key_id",),
    Dimension.PROVIDER: ("provider",),
    Dimension.WORKFLOW: ("workflow",),
}


def totals(source: FiguresSource) -> Statement:
    """Every figure, by period and funding."""
    return source.sums(("period", "funding"), FIGURES)


def breakdown(source: FiguresSource, dimension: Dimension) -> Statement:
    """The figures of a breakdown, by period and group."""
    return source.sums(("period", *_GROUP[dimension]), BREAKDOWN_FIGURES, OWN_KEY, OWN_KEY_FIGURES)


def groups(source: FiguresSource, dimension: Dimension) -> Statement:
    """Every figure, by period, funding and group."""
    return source.sums(("period", "funding", *_GROUP[dimension]), FIGURES)


def row_of_totals(row: Row[Any]) -> FiguresRow:
    period, funding, *figures = tuple(row)
    return FiguresRow(period=period, funding=funding, figures=Figures._make(map(int, figures)))


def row_of_breakdown(dimension: Dimension, row: Row[Any]) -> Breakdown:
    values: Sequence[Any] = row
    (period, *names), figures = values[:-_BREAKDOWN_COUNT], map(int, values[-_BREAKDOWN_COUNT:])
    return Breakdown(period, names[0], _provider(dimension, names), *figures)


def row_of_group(dimension: Dimension, row: Row[Any]) -> FiguresRow:
    values: Sequence[Any] = row
    period, funding, *names = values[: -len(FIGURES)]
    figures = Figures._make(map(int, values[-len(FIGURES) :]))
    provider = _provider(dimension, names)
    return FiguresRow(period=period, funding=funding, group=names[0], provider=provider, figures=figures)


_BREAKDOWN_COUNT = len(BREAKDOWN_FIGURES) + len(OWN_KEY_FIGURES)


def _provider(dimension: Dimension, names: Sequence[str]) -> str:
    return names[-1] if dimension in (Dimension.MODEL, Dimension.PROVIDER) else ""
