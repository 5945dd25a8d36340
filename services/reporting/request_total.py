"""How many calls match: the SQL that needs no look at each of them."""

from typing import Any

from sqlalchemy import Select, select

from services.reporting.figures_query import FiguresSource
from services.reporting.request_filter import RequestFilter

_COUNTS = ("request_count", "success_count", "cache_count")


def from_figures(calls: RequestFilter, source: FiguresSource) -> Select[Any] | None:
    """The sum over figures of the time that the calls are of. None where figures do not tell such calls apart."""
    if calls.status is not None or calls.latency_ms_min is not None or calls.cost_pico_min is not None:
        return None
    if calls.metadata or (calls.succeeded is not None and calls.cached is not None):
        return None
    sums = source.sums((), _COUNTS).subquery()
    requests, successes, cached = sums.c
    if calls.succeeded is not None:
        return select(successes if calls.succeeded else requests - successes)
    if calls.cached is not None:
        return select(cached if calls.cached else requests - cached)
    return select(requests)
