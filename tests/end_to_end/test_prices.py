"""Prices over REST: what is published is what the next call costs."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

USAGE = {"input_tokens": "1000", "cached_input_tokens": "600", "output_tokens": "200"}
PER_MILLION = Decimal(10) ** -6


def prices(**usd_per_million: str) -> dict[str, Any]:
    return {
        "unit_prices": [
            {"unit": f"PRICE_UNIT_{name}", "price": price, "per": 1_000_000} for name, price in usd_per_million.items()
        ]
    }


def test_a_preview_prices_the_worked_example_without_recording_it(customer: Any) -> None:
    body = {
        "usage": USAGE,
        "prices": prices(INPUT_TOKEN="2.50", CACHED_INPUT_TOKEN="1.25", OUTPUT_TOKEN="10"),
        "discount": "0.20",
    }

    answer = customer.api.post("/v1/prices:preview", body)

    assert answer.status == 200, answer
    costs = {line["line"]: line["cost"] for line in answer.body["lines"]}
    assert costs == {"INPUT": "0.0008", "CACHED_INPUT": "0.0006", "OUTPUT": "0.0016"}
    assert (answer.body["total"], answer.body["saved"]) == ("0.003", "0.00075")
    assert customer.api.get("/activity?days=1").body["activity"] == []


def test_a_published_price_is_what_the_next_call_costs(operator: Any, customer: Any) -> None:
    published = operator.post(
        "/v1/prices",
        {
            "provider": "openai",
            "model": "gpt-4.1-mini",
            "valid_from": datetime.now(UTC).isoformat(),
            "prices": prices(INPUT_TOKEN="1", OUTPUT_TOKEN="7"),
        },
    )
    assert published.status == 200, published
    time.sleep(1.5)  # every running ledger prices with it within a second

    call = customer.api.call(customer.api.chat("Hello there", model="gpt-4.1-mini").headers["x-tollgate-request-id"])

    unit_prices = {line["line"]: Decimal(line["unit_price"]) for line in call["cost_lines"]}
    assert unit_prices == {"INPUT": PER_MILLION, "OUTPUT": 7 * PER_MILLION}


def test_the_history_of_a_price_keeps_every_version(customer: Any) -> None:
    answer = customer.api.get("/v1/prices:history?provider=openai&model=gpt-4o")

    assert answer.status == 200, answer
    assert all(version["source"] for version in answer.body["versions"])


def test_a_price_with_too_many_decimals_is_refused_by_name(operator: Any) -> None:
    body = {
        "provider": "openai",
        "model": "gpt-x",
        "valid_from": "2026-01-01T00:00:00Z",
        "prices": prices(INPUT_TOKEN="0." + "1" * 30),
    }

    answer = operator.post("/v1/prices", body)

    assert answer.status == 400
    assert "decimals" in answer.body["message"]


def test_only_operators_publish_prices(customer: Any) -> None:
    answer = customer.api.post("/v1/prices", {"provider": "openai", "model": "gpt-x", "prices": {}})

    assert answer.status == 403
