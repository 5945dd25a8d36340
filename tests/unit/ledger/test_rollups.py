from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.ledger.pricing import CostLine, Funding, Line, Outcome, PricedCall, Usage
from services.ledger.usage.records import Endpoint, PricedRecord, UsageRecord, UsageSource
from services.ledger.usage.rollups import FIGURES, HourKey, add_up, by_hour

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_US = round(NOON.timestamp()) * 1_000_000


def a_line(line: Line, cost_pico: int) -> CostLine:
    return CostLine(line, 1, Decimal(1), Decimal(0), cost_pico, cost_pico, True)


def a_priced_record(*lines: CostLine, unpriced: bool = False, **fields: Any) -> PricedRecord:
    values: dict[str, Any] = {
        "request_id": "0199a000-0000-7000-8000-000000000001",
        "request_day": 20_000,
        "organization_id": "0199a000-0000-7000-8000-00000000000a",
        "project_id": "web",
        "api_key_id": "0199a000-0000-7000-8000-00000000000b",
        "endpoint": Endpoint.CHAT_COMPLETIONS,
        "requested_model": "gpt-4o",
        "model": "gpt-4o",
        "provider": "openai",
        "start_us": NOON_US,
        "latency_ms": 5,
        "time_to_first_token_ms": None,
        "outcome": Outcome.SUCCESS,
        "status": 200,
        "error_type": "",
        "funding": Funding.CREDITS,
        "usage": None,
        "usage_source": UsageSource.NONE,
        "service_tier": "",
        "streamed": False,
        "cache_hit": False,
        "workflow": "",
        "metadata": {},
        "attempts": (),
        "flags": (),
        "payload_retained": False,
    }
    cost = sum(line.cost_pico for line in lines)
    priced = PricedCall(lines, None if unpriced else cost, 0, cost, unpriced)
    return PricedRecord(UsageRecord(**values | fields), priced, None, Decimal(0))


def figures_of(*records: PricedRecord) -> dict[str, int]:
    """Of the only hour there is, without the zeros."""
    (figures,) = add_up(by_hour(records)).values()
    return {name: figure for name, figure in zip(FIGURES, figures, strict=True) if figure}


def test_an_hour_runs_from_its_first_microsecond_to_its_last() -> None:
    one_o_clock = NOON_US + 3_600_000_000

    hours = add_up(by_hour([a_priced_record(start_us=time) for time in (NOON_US, one_o_clock - 1, one_o_clock)]))

    counts = [(key.hour, figures[0]) for key, figures in hours.items()]
    assert counts == [(NOON, 2), (NOON.replace(hour=13), 1)]


def test_each_line_has_a_figure_and_cost_is_their_sum() -> None:
    lines = [a_line(line, 10**line) for line in Line]

    figures = figures_of(a_priced_record(*lines))

    assert [figures[f"{line.name.lower()}_cost_pico"] for line in Line] == [10**line for line in Line]
    assert figures["cost_pico"] == figures["charged_pico"] == sum(10**line for line in Line)


def test_tokens_are_summed_where_usage_is_known() -> None:
    usage = Usage(
        input_tokens=9, output_tokens=7, cached_input_tokens=5, cache_write_tokens=3, reasoning_tokens=1, web_searches=4
    )

    figures = figures_of(a_priced_record(usage=usage), a_priced_record())

    assert figures == {
        "request_count": 2,
        "success_count": 2,
        "input_tokens": 9,
        "output_tokens": 7,
        "cached_input_tokens": 5,
        "cache_write_tokens": 3,
        "reasoning_tokens": 1,
        "latency_ms_sum": 10,
    }


def test_calls_are_counted_by_how_they_ended() -> None:
    figures = figures_of(
        a_priced_record(status=200, streamed=True),
        a_priced_record(status=204, cache_hit=True),
        a_priced_record(status=499, outcome=Outcome.CLIENT_GONE),
        a_priced_record(status=429, outcome=Outcome.REFUSED),
        a_priced_record(status=502, outcome=Outcome.PROVIDER_ERROR, unpriced=True),
    )

    assert figures == {
        "request_count": 5,
        "success_count": 2,
        "client_error_count": 2,
        "refused_count": 1,
        "cache_count": 1,
        "streamed_count": 1,
        "unpriced_count": 1,
        "latency_ms_sum": 25,
    }


def test_figures_are_apart_for_everything_they_are_asked_by() -> None:
    fields: dict[str, Any] = {
        "organization_id": "0199a000-0000-7000-8000-00000000000c",
        "start_us": 0,
        "project_id": "other",
        "api_key_id": "0199a000-0000-7000-8000-00000000000d",
        "model": "other",
        "provider": "other",
        "funding": Funding.OWN_KEY,
        "workflow": "other",
    }

    hours = add_up(by_hour([a_priced_record(), *(a_priced_record(**{name: value}) for name, value in fields.items())]))

    assert len(fields) == len(HourKey._fields)
    assert len(hours) == len(fields) + 1


@given(
    costs=st.lists(st.tuples(st.sampled_from(Line), st.integers(0, 2**62), st.booleans()), max_size=12),
    order=st.randoms(),
)
def test_the_order_of_records_does_not_matter(costs: list[tuple[Line, int, bool]], order: Any) -> None:
    records = [a_priced_record(a_line(line, cost), streamed=streamed) for line, cost, streamed in costs]
    shuffled = list(records)
    order.shuffle(shuffled)

    assert add_up(by_hour(shuffled)) == add_up(by_hour(records))
