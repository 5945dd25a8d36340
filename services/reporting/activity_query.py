"""The SQL of the activity family: what periods add up to, and their breakdowns."""

from collections.abc import Sequence
from typing import Any

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


def row_of_totals(row: Sequence[Any]) -> FiguresRow:
    period, funding, *figures = row
    return FiguresRow(period=period, funding=funding, figures=Figures._make(figures))


def row_of_breakdown(dimension: Dimension, row: Sequence[Any]) -> Breakdown:
    if dimension is Dimension.MODEL:
        return Breakdown._make(row)
    period, name, *figures = row
    return Breakdown(period, name, name if dimension is Dimension.PROVIDER else "", *figures)


def row_of_group(dimension: Dimension, row: Sequence[Any]) -> FiguresRow:
    period, funding, *names = row[: -len(FIGURES)]
    provider = names[-1] if dimension in (Dimension.MODEL, Dimension.PROVIDER) else ""
    figures = Figures._make(row[-len(FIGURES) :])
    return FiguresRow(period=period, funding=funding, group=names[0], provider=provider, figures=figures)
