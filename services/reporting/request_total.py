"""How many calls match: the SQL that needs no look at each of them."""

from sqlalchemy import select

from services.reporting.figures_query import FiguresSource, Statement
from services.reporting.request_filter import RequestFilter

_COUNTS = ("request_count", "success_count", "cache_count")


def from_figures(calls: RequestFilter, source: FiguresSource) -> Statement | None:
    """The sum over figures of the time that the calls are of. None where figures do not tell such calls apart."""
    if calls.status is not None or calls.latency_ms_min is not None or calls.cost_pico_min is not None:
        return None
    if calls.metadata or (calls.succeeded is not None and calls.cached is not None):
        return None
    sums = source.sums((), _COUNTS)
    parameters, (requests, successes, cached) = sums.parameters, sums.select.subquery().c
    if calls.succeeded is not None:
        return Statement(select(successes if calls.succeeded else requests - successes), parameters)
    if calls.cached is not None:
        return Statement(select(cached if calls.cached else requests - cached), parameters)
    return Statement(select(requests), parameters)
