"""The books as finance sees them: over REST, through Envoy, with real calls."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from development.demo import CALLS


def make_calls(customer: Any) -> Decimal:
    """The varied calls of the demo, once all are in the figures; what credits pay for them."""
    for call in CALLS:
        customer.api.post("/v1/chat/completions", call.body, x_tollgate_project=call.project)
    return Decimal(customer.api.today(len(CALLS))["chargedExact"])


def this_month() -> str:
    return f"{datetime.now(UTC):%Y-%m}"


def test_a_statement_a_balance_and_the_entries_say_the_same(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(credit="10", payload_retained=True)
    charged = make_calls(customer)

    statement = customer.api.get(f"/v1/statement?period={this_month()}").body
    entries = customer.api.get("/v1/ledger_entries").body["entries"]

    assert Decimal(statement["total"]["charged"]) == Decimal(statement["balance"]["usage"]) == charged > 0
    assert Decimal(statement["balance"]["closing"]) == customer.api.balance() == 10 - charged
    assert sum(Decimal(line["amounts"]["charged"]) for line in statement["lines"]) == charged
    assert Decimal(statement["charged_rounded"]) + Decimal(statement["rounding_residual"]) == charged
    assert [entry["sequence"] for entry in entries] == [str(number) for number in range(1, len(entries) + 1)]
    assert entries[-1]["balance"] == statement["balance"]["closing"]
    assert sum(Decimal(posting["amount"]) for entry in entries for posting in entry["postings"]) == 0


def test_books_are_verified_over_rest(make_customer: Callable[..., Any], operator: Any) -> None:
    customer = make_customer(payload_retained=True)
    make_calls(customer)

    own = customer.api.get("/v1/books:verify").body
    named = operator.get(f"/v1/books:verify?organization_id={customer.organization_id}").body

    for findings in (own, named):
        assert (findings["agree"], findings["differences"], findings["truncated"]) == (True, [], False)
        assert findings["verified"]["records"] == str(len(CALLS))


def test_entries_are_followed_page_by_page(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(payload_retained=True)
    make_calls(customer)
    whole = customer.api.get("/v1/ledger_entries?limit=1000").body

    seen, after = [], "0"
    while (page := customer.api.get(f"/v1/ledger_entries?after={after}&limit=1").body)["entries"]:
        seen += page["entries"]
        after = page["last_sequence"]

    assert seen == whole["entries"]
    assert after == whole["last_sequence"] == customer.api.get("/v1/balance").body["sequence"]


def test_credit_is_granted_until_a_moment_given_back_and_listed(customer: Any, operator: Any) -> None:
    own = {"organization_id": customer.organization_id}
    ends = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    gift = {**own, "grant_id": "gift", "amount": "5", "kind": "CREDIT_KIND_PROMOTIONAL", "expire_time": ends}
    back = {**own, "refund_id": "back", "amount": "4", "kind": "REFUND_KIND_UNSPENT", "grant_id": "first"}

    granted = operator.post("/v1/credit_grants", gift)
    refunded = operator.post("/v1/credit_refunds", back)
    refused = operator.post("/v1/credit_refunds", {**back, "refund_id": "more", "amount": "7"})
    listed = customer.api.get("/v1/credit_grants").body["credit_grants"]

    assert (granted.status, granted.body["expire_time"]) == (200, ends)
    assert (refunded.status, refunded.body["balance"], customer.api.balance()) == (200, "11", 11)
    assert (refused.status, refused.body["error"]["code"]) == (400, "invalid_request")
    assert [(grant["grant_id"], grant["remaining"], grant.get("expire_time")) for grant in listed] == [
        ("gift", "5", ends),
        ("first", "6", None),
    ]


def test_only_operators_give_back(customer: Any) -> None:
    refund = {"refund_id": "mine", "amount": "1", "kind": "REFUND_KIND_UNSPENT", "grant_id": "first"}

    assert customer.api.post("/v1/credit_refunds", refund).status == 403


def test_a_statement_that_ends_before_it_begins_is_refused_by_name(customer: Any) -> None:
    answer = customer.api.get("/v1/statement?from=2026-03-02&to=2026-03-01")

    assert answer.status == 400
    assert answer.body["error"]["message"] == "to must not be before from, got 2026-03-02 to 2026-03-01"


def test_history_is_imported_over_rest_and_charges_nobody(customer: Any) -> None:
    start_time = (datetime.now(UTC) - timedelta(days=2)).isoformat().replace("+00:00", "Z")
    record = {
        "project_id": "web",
        "endpoint": "ENDPOINT_CHAT_COMPLETIONS",
        "requested_model": "gpt-4o",
        "model": "gpt-4o",
        "provider": "openai",
        "start_time": start_time,
        "latency_ms": 700,
        "outcome": "OUTCOME_SUCCESS",
        "status": 200,
        "funding": "FUNDING_CREDITS",
        "usage": {"input_tokens": 1_000, "output_tokens": 100},
        "usage_source": "USAGE_SOURCE_REPORTED",
    }
    body = {"source": "other-gateway", "records": [{"source_id": "call-1", "record": record}]}

    first, again = [customer.api.post("/v1/records:import", body) for _ in range(2)]

    (recorded,), (repeated,) = first.body["results"], again.body["results"]
    assert (recorded["status"], repeated["status"]) == ("RECORD_STATUS_RECORDED", "RECORD_STATUS_DUPLICATE")
    call = customer.api.call(recorded["request_id"])
    assert (Decimal(call["cost_exact"]), call["charged_exact"]) == (Decimal("0.0035"), "0")
    assert customer.api.balance() == 10
    assert customer.api.get("/v1/books:verify").body["agree"] is True
