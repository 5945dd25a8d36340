"""Every figure agrees with every other, to the last pico-dollar."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from development.demo import CALLS


def make_calls(customer: Any) -> list[dict[str, Any]]:
    """The varied calls of the demo: plain, streamed, cached prompt, own key, failing. As reporting shows them."""
    answers = [customer.api.post("/v1/chat/completions", call.body, x_tollgate_project=call.project) for call in CALLS]
    return [customer.api.call(answer.headers["x-tollgate-request-id"]) for answer in answers]


def total(amounts: list[str]) -> Decimal:
    return sum((Decimal(amount) for amount in amounts), Decimal(0))


def test_lines_activity_and_balance_agree_exactly(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(credit="10", payload_retained=True)

    calls = make_calls(customer)
    day = customer.api.today(len(calls))
    lines = [line for call in calls for line in call["cost_lines"]]

    assert total([line["cost"] for line in lines]) == Decimal(day["costExact"]) > 0
    assert total([line["cost"] for line in lines if line["charged"]]) == Decimal(day["chargedExact"])
    assert Decimal(10) - customer.api.balance() == Decimal(day["chargedExact"]) > 0
    assert day["cost"] == float(day["costExact"])


def test_each_call_is_the_sum_of_its_lines(make_customer: Callable[..., Any]) -> None:
    for call in make_calls(make_customer(payload_retained=True)):
        assert total([line["cost"] for line in call["cost_lines"]]) == Decimal(call["cost_exact"])
        assert total([line["cost"] for line in call["cost_lines"] if line["charged"]]) == Decimal(call["charged_exact"])


def test_own_keys_pay_the_provider_and_credits_pay_the_storage(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(payload_retained=True)
    answer = customer.api.chat("Hello", project="lab")

    call = customer.api.call(answer.headers["x-tollgate-request-id"])

    charged = {line["line"]: line["charged"] for line in call["cost_lines"]}
    assert call["request"]["funding"] == "own_key"
    assert charged == {"INPUT": False, "OUTPUT": False, "DATA_STORAGE": True}


def test_a_cached_prompt_is_charged_at_the_cached_price(customer: Any) -> None:
    cached = next(call for call in CALLS if call.shows == "cached prompt")
    answer = customer.api.post("/v1/chat/completions", cached.body, x_tollgate_project="web")

    call = customer.api.call(answer.headers["x-tollgate-request-id"])

    lines = {line["line"]: line for line in call["cost_lines"]}
    quantities = {name: Decimal(line["quantity"]) for name, line in lines.items()}
    assert quantities["CACHED_INPUT"] == Decimal(call["usage"]["cached_input_tokens"]) > 0
    assert quantities["INPUT"] + quantities["CACHED_INPUT"] == Decimal(call["usage"]["input_tokens"])
    assert Decimal(lines["CACHED_INPUT"]["unit_price"]) < Decimal(lines["INPUT"]["unit_price"])


def test_a_failed_call_costs_nothing_and_counts_as_an_error(customer: Any) -> None:
    failing = next(call for call in CALLS if call.shows == "failing")
    answer = customer.api.post("/v1/chat/completions", failing.body, x_tollgate_project="web")

    call = customer.api.call(answer.headers["x-tollgate-request-id"])
    day = customer.api.today(1)

    assert Decimal(call["cost_exact"]) == 0
    assert (day["errorCount"], day["cost"]) == (1, 0)
    assert customer.api.balance() == 10


def test_the_parts_of_a_day_add_up_to_its_cost(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(payload_retained=True)
    calls = make_calls(customer)

    day = customer.api.today(len(calls))

    parts = ("input", "output", "cachedInput", "cacheWriteInput", "request", "webSearch", "dataStorage")
    assert abs(day["cost"] - sum(day[f"{part}Cost"] for part in parts)) < 1e-12
    assert abs(day["cost"] - day["creditsCost"] - day["apiKeysCost"]) < 1e-12
    assert day["requestCount"] == day["creditsRequestCount"] + day["apiKeysRequestCount"] == len(calls)
    assert sum(row["requestCount"] for row in day["modelBreakdown"]) == len(calls)
