"""What records of an hour add up to. Pure: the same records in any order give the same figures."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from services.ledger.pricing import Line, Outcome
from services.ledger.records import PricedRecord

COUNTS = (
    "request_count",
    "success_count",
    "client_error_count",
    "refused_count",
    "cache_count",
    "streamed_count",
    "unpriced_count",
)
TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
LINE_COSTS = tuple(f"{line.name.lower()}_cost_pico" for line in Line)
# Every figure of an hour, in the order of `Figures`.
FIGURES = (*COUNTS, *TOKENS, *LINE_COSTS, "cost_pico", "saved_pico", "charged_pico", "latency_ms_sum")

_REQUEST, _SUCCESS, _CLIENT_ERROR, _REFUSED, _CACHE, _STREAMED, _UNPRICED = range(len(COUNTS))
_INPUT, _OUTPUT, _CACHED_INPUT, _CACHE_WRITE, _REASONING = range(len(COUNTS), len(COUNTS) + len(TOKENS))
# Lines count from 1.
_BEFORE_LINES = len(COUNTS) + len(TOKENS) - 1
_COST, _SAVED, _CHARGED, _LATENCY = range(len(FIGURES) - 4, len(FIGURES))

Figures = list[int]


class HourKey(NamedTuple):
    """What figures are kept by. Sorts as the database sorts it."""

    organization_id: str
    # In UTC.
    hour: datetime
    project_id: str
    api_key_id: str
    model: str
    provider: str
    funding: int
    workflow: str


def add_up(records: Iterable[PricedRecord]) -> dict[HourKey, Figures]:
    """The figures of these records, by hour and by everything that figures are asked by."""
    hours: dict[HourKey, Figures] = {}
    for priced_record in records:
        record = priced_record.record
        key = HourKey(
            record.organization_id,
            record.start_time.replace(minute=0, second=0, microsecond=0),
            record.project_id,
            record.api_key_id,
            record.model,
            record.provider,
            record.funding,
            record.workflow,
        )
        figures = hours.get(key)
        if figures is None:
            figures = hours[key] = [0] * len(FIGURES)
        _add(figures, priced_record)
    return hours


def _add(figures: Figures, priced_record: PricedRecord) -> None:
    record, priced, usage = priced_record.record, priced_record.priced, priced_record.record.usage
    figures[_REQUEST] += 1
    figures[_SUCCESS] += 200 <= record.status < 300
    figures[_CLIENT_ERROR] += 400 <= record.status < 500
    figures[_REFUSED] += record.outcome is Outcome.REFUSED
    figures[_CACHE] += record.cache_hit
    figures[_STREAMED] += record.streamed
    figures[_UNPRICED] += priced.unpriced
    figures[_LATENCY] += record.latency_ms
    if usage is not None:
        figures[_INPUT] += usage.input_tokens
        figures[_OUTPUT] += usage.output_tokens
        figures[_CACHED_INPUT] += usage.cached_input_tokens
        figures[_CACHE_WRITE] += usage.cache_write_tokens
        figures[_REASONING] += usage.reasoning_tokens
    for line in priced.lines:
        figures[_BEFORE_LINES + line.line] += line.cost_pico
        figures[_COST] += line.cost_pico
    figures[_SAVED] += priced.saved_pico
    figures[_CHARGED] += priced.charged_pico
