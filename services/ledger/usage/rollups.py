"""What records of an hour add up to. Pure: the same records in any order give the same figures."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from services.ledger.pricing import Funding, Line, Outcome
from services.ledger.usage.records import PricedRecord, UsageRecord

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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_US = 3_600_000_000

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


def by_hour(records: Iterable[PricedRecord]) -> dict[HourKey, list[PricedRecord]]:
    """The records of each hour, by everything that figures are asked by."""
    groups: dict[tuple[object, ...], list[PricedRecord]] = {}
    for one in records:
        record = one.record
        # Of plain values, and only made a key once for each group: there are many records.
        place = (
            record.organization_id,
            record.start_us // _HOUR_US,
            record.project_id,
            record.api_key_id,
            record.model,
            record.provider,
            record.funding,
            record.workflow,
        )
        group = groups.get(place)
        if group is None:
            groups[place] = [one]
        else:
            group.append(one)
    return {_key(group[0].record): group for group in groups.values()}


def add_up(groups: Mapping[HourKey, Iterable[PricedRecord]]) -> dict[HourKey, Figures]:
    """The figures of each hour."""
    hours: dict[HourKey, Figures] = {}
    for key, records in groups.items():
        figures = hours[key] = [0] * len(FIGURES)
        for one in records:
            _add(figures, one)
    return hours


def spent_by_keys(hours: Mapping[HourKey, Figures]) -> dict[tuple[str, str, date], int]:
    """What calls that credits paid for were charged, by organization, key and day in UTC."""
    spent: dict[tuple[str, str, date], int] = {}
    for key, figures in hours.items():
        if key.funding == Funding.CREDITS and figures[_CHARGED]:
            day = (key.organization_id, key.api_key_id, key.hour.date())
            spent[day] = spent.get(day, 0) + figures[_CHARGED]
    return spent


def _key(record: UsageRecord) -> HourKey:
    return HourKey(
        record.organization_id,
        _hour(record.start_us // _HOUR_US),
        record.project_id,
        record.api_key_id,
        record.model,
        record.provider,
        record.funding,
        record.workflow,
    )


@lru_cache(maxsize=1_024)
def _hour(number: int) -> datetime:
    """The hour, counted from 1970."""
    return _EPOCH + timedelta(hours=number)


def _add(figures: Figures, priced_record: PricedRecord) -> None:
    record, priced = priced_record.record, priced_record.priced
    usage = record.usage
    figures[_REQUEST] += 1
    if 200 <= record.status < 300:
        figures[_SUCCESS] += 1
    elif 400 <= record.status < 500:
        figures[_CLIENT_ERROR] += 1
    if record.outcome is Outcome.REFUSED:
        figures[_REFUSED] += 1
    if record.cache_hit:
        figures[_CACHE] += 1
    if record.streamed:
        figures[_STREAMED] += 1
    if priced.unpriced:
        figures[_UNPRICED] += 1
    figures[_LATENCY] += record.latency_ms
    if usage is not None:
        figures[_INPUT] += usage.input_tokens
        figures[_OUTPUT] += usage.output_tokens
        figures[_CACHED_INPUT] += usage.cached_input_tokens
        figures[_CACHE_WRITE] += usage.cache_write_tokens
        figures[_REASONING] += usage.reasoning_tokens
    # Taking a line apart is cheaper than asking it for two of its fields.
    for line, _, _, _, cost, _, _ in priced.lines:
        figures[_BEFORE_LINES + line] += cost
        figures[_COST] += cost
    figures[_SAVED] += priced.saved_pico
    figures[_CHARGED] += priced.charged_pico
