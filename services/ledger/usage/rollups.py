"""What records of an hour add up to. Pure: the same records in any order give the same figures."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
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

_CHARGED = FIGURES.index("charged_pico")
_REFUSED = Outcome.REFUSED
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_US = 3_600_000_000

Figures = list[int]
# Price version, line, whether credits paid, discount.
LineKey = tuple[int | None, Line, bool, Decimal]
# How many, their quantity, list cost and cost.
LineSums = list[int]


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


class Hour(NamedTuple):
    """What belongs to one key."""

    records: list[PricedRecord]
    # What the lines of these records add up to, which everything that is kept about money is made of.
    lines: dict[LineKey, LineSums]


def by_hour(records: Iterable[PricedRecord]) -> dict[HourKey, Hour]:
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
    return {_key(group[0].record): Hour(group, _sum_lines(group)) for group in groups.values()}


def add_up(hours: Mapping[HourKey, Hour]) -> dict[HourKey, Figures]:
    """The figures of each hour."""
    return {key: _figures(hour) for key, hour in hours.items()}


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


def _figures(hour: Hour) -> Figures:
    success_count = client_error_count = refused_count = cache_count = streamed_count = unpriced_count = 0
    input_tokens = output_tokens = cached_input_tokens = cache_write_tokens = reasoning_tokens = latency_ms = 0
    for record, priced, _, _ in hour.records:
        status, usage = record.status, record.usage
        if 200 <= status < 300:
            success_count += 1
        elif 400 <= status < 500:
            client_error_count += 1
        if record.outcome is _REFUSED:
            refused_count += 1
        if record.cache_hit:
            cache_count += 1
        if record.streamed:
            streamed_count += 1
        if priced.unpriced:
            unpriced_count += 1
        latency_ms += record.latency_ms
        if usage is not None:
            input_tokens += usage.input_tokens
            output_tokens += usage.output_tokens
            cached_input_tokens += usage.cached_input_tokens
            cache_write_tokens += usage.cache_write_tokens
            reasoning_tokens += usage.reasoning_tokens

    line_costs = [0] * len(LINE_COSTS)
    cost = list_cost = charged = 0
    for (_, line, is_charged, _), (_, _, line_list_cost, line_cost) in hour.lines.items():
        # Lines count from 1.
        line_costs[line - 1] += line_cost
        cost += line_cost
        list_cost += line_list_cost
        if is_charged:
            charged += line_cost
    # fmt: off
    return [
        len(hour.records), success_count, client_error_count, refused_count, cache_count, streamed_count,
        unpriced_count,
        input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
        *line_costs,
        cost, list_cost - cost, charged, latency_ms,
    ]
    # fmt: on


def _sum_lines(records: Iterable[PricedRecord]) -> dict[LineKey, LineSums]:
    sums_of: dict[LineKey, LineSums] = {}
    for one in records:
        version_id = one.price_version_id
        # Taking a line apart is cheaper than asking it for six of its fields.
        for line, quantity, _, discount, cost, list_cost, charged in one.priced.lines:
            key = (version_id, line, charged, discount)
            sums = sums_of.get(key)
            if sums is None:
                sums_of[key] = [1, quantity, list_cost, cost]
            else:
                sums[0] += 1
                sums[1] += quantity
                sums[2] += list_cost
                sums[3] += cost
    return sums_of
