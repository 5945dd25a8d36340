"""What is retained of calls, for how long, and what of it can be seen, through the front door."""

import json
from collections.abc import Callable
from typing import Any


def bodies(call: dict[str, Any]) -> tuple[str, str]:
    return call["request_body"], call["response_body"]


def test_a_retained_payload_is_shown_as_it_was_sent_and_its_storage_charged(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(payload_retained=True)
    answer = customer.api.chat("Grüezi 🙂")

    call = customer.api.call(answer.headers["x-tollgate-request-id"])

    assert json.loads(call["request_body"])["messages"] == [{"role": "user", "content": "Grüezi 🙂"}]
    assert json.loads(call["response_body"]) == answer.body
    assert not call["request_body_is_base64"]
    assert "DATA_STORAGE" in [line["line"] for line in call["cost_lines"]]


def test_a_retained_stream_is_shown_with_all_its_events(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(payload_retained=True)
    answer = customer.api.chat("Hello", stream=True)

    call = customer.api.call(answer.headers["x-tollgate-request-id"])

    assert call["response_body"] == answer.body
    assert call["response_body"].endswith("data: [DONE]\n\n")
    assert call["response_content_type"].startswith("text/event-stream")


def test_where_payloads_are_not_retained_there_are_none_and_nothing_is_charged_for_them(customer: Any) -> None:
    answer = customer.api.chat("Hello")

    call = customer.api.call(answer.headers["x-tollgate-request-id"])

    assert bodies(call) == ("", "")
    assert "DATA_STORAGE" not in [line["line"] for line in call["cost_lines"]]


def test_a_change_of_plan_shows_in_the_next_answer(customer: Any, operator: Any) -> None:
    def retention_days() -> str:
        answer = customer.api.get("/activity?days=1")
        return str(answer.headers["x-tollgate-retention-days"])

    before = retention_days()
    change = {"plan": "PLAN_ENTERPRISE", "retention_days": 31}
    answer = operator.patch(f"/v1/organizations/{customer.organization_id}", change)

    assert answer.status == 200, answer
    assert (before, retention_days()) == ("3", "31")


def test_expiries_are_for_customers_and_problems_for_operators(customer: Any, operator: Any) -> None:
    own = customer.api.get("/v1/expiries")
    problems = operator.get("/v1/retention_problems")
    forbidden = customer.api.get("/v1/retention_problems")

    assert (own.status, own.body) == (200, {"expiries": [], "next_page_token": ""})
    assert (problems.status, problems.body) == (200, {"problems": [], "next_page_token": ""})
    assert forbidden.status == 403
