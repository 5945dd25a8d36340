"""Alerts through the front door: a rule by REST, calls that fail, and whoever listens."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.end_to_end.conftest import eventually
from tests.webhook_receiver import a_receiver

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
RULE = {"metric": "ALERT_METRIC_ERROR_RATE", "threshold": "40", "window_minutes": 5, "request_count_min": 3}


def ok(answer: Any) -> Any:
    assert answer.status == 200, answer
    return answer.body


def fail(customer: Any, count: int) -> None:
    for _ in range(count):
        assert customer.api.chat("simulate:status=400").status == 400


def has_alerts(count: int) -> Any:
    return lambda answer: len(ok(answer)["alerts"]) == count


def test_failing_calls_fire_a_rule_and_answered_ones_resolve_it(customer: Any) -> None:
    with a_receiver() as receiver:
        made = ok(customer.api.post("/v1/alert_rules", {**RULE, "display_name": "Errors", "webhook_url": receiver.url}))
        fail(customer, 2)
        assert customer.api.chat("Hello").status == 200
        (firing,) = ok(eventually(lambda: customer.api.get("/v1/alerts"), has_alerts(1)))["alerts"]
        for _ in range(2):
            assert customer.api.chat("Hello").status == 200
        # Two of five calls are 40 per cent, which is not above the threshold.
        eventually(lambda: customer.api.get("/v1/alerts"), has_alerts(2))
        first, second = receiver.wait_for(2)
        listed = ok(
            eventually(
                lambda: customer.api.get("/v1/alerts"),
                lambda answer: all(
                    alert["delivery"]["state"] == "ALERT_DELIVERY_STATE_DELIVERED" for alert in answer.body["alerts"]
                ),
            )
        )

    resolved, fired = listed["alerts"]
    assert (fired["state"], fired["value"], fired["request_count"]) == ("ALERT_STATE_FIRING", "66.666666666667", 3)
    assert (resolved["state"], resolved["value"]) == ("ALERT_STATE_RESOLVED", "40")
    assert (fired["alert_id"], fired["display_name"], fired["threshold"]) == (firing["alert_id"], "Errors", "40")
    assert listed["next_page_token"] == ""
    assert [first.id, second.id] == [fired["alert_id"], resolved["alert_id"]]
    assert all(one.is_signed_with(made["webhook_secret"]) for one in (first, second))
    # What is delivered is what is shown.
    assert first.event == {
        "type": "alert.firing",
        "timestamp": fired["create_time"],
        "data": {name: value for name, value in fired.items() if name != "delivery"},
    }


def test_cost_fires_to_the_pico_dollar(customer: Any) -> None:
    answer = customer.api.chat("Hello")
    cost = customer.api.call(answer.headers["x-tollgate-request-id"])["cost_exact"]

    rule = {"metric": "ALERT_METRIC_COST", "threshold": cost, "window_minutes": 60}
    ok(customer.api.post("/v1/alert_rules", {**rule, "display_name": "on it"}))
    ok(
        customer.api.post(
            "/v1/alert_rules", {**rule, "display_name": "below it", "comparison": "ALERT_COMPARISON_BELOW"}
        )
    )
    evaluated = eventually(
        lambda: customer.api.get("/v1/alert_rules"),
        lambda answer: all("evaluate_time" in one for one in ok(answer)["alert_rules"]),
    )

    assert {(one["value"], one["state"]) for one in ok(evaluated)["alert_rules"]} == {(cost, "ALERT_STATE_OK")}
    customer.api.chat("Hello")
    (alert,) = ok(eventually(lambda: customer.api.get("/v1/alerts"), has_alerts(1)))["alerts"]
    assert alert["display_name"] == "on it"


def test_a_rule_lives_from_creation_to_deletion(customer: Any) -> None:
    api = customer.api
    rule = ok(api.post("/v1/alert_rules", {**RULE, "project_id": "web"}))["alert_rule"]
    path = f"/v1/alert_rules/{rule['alert_rule_id']}"

    assert ok(api.get(path))["alert_rule"]["request_count_min"] == 3
    paused = ok(api.patch(path, {"paused": True, "request_count_min": 0}))["alert_rule"]
    assert (paused["paused"], paused["request_count_min"], paused["threshold"]) == (True, 0, "40")
    assert [one["project_id"] for one in ok(api.get("/v1/alert_rules?project_id=web&state=ok"))["alert_rules"]] == [
        "web"
    ]
    assert ok(api.get("/v1/alert_rules?project_id=lab")) == {"alert_rules": [], "next_page_token": ""}
    assert ok(api.delete(path)) == {}
    assert api.get(path).status == 404
    actions = [one["action"] for one in ok(api.get("/v1/audit_entries?limit=3"))["audit_entries"]]
    assert actions == ["alert_rule.delete", "alert_rule.update", "alert_rule.create"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metric": "ALERT_METRIC_MOOD"}, "metric"),
        ({"threshold": "high"}, "threshold"),
        ({"window_minutes": 1}, "window_minutes"),
        ({"window_minutes": "soon"}, "window_minutes"),
        ({"percentile": 95}, "percentile"),
        ({"webhook_url": "gopher://example.com"}, "webhook_url"),
    ],
)
def test_a_rule_that_makes_no_sense_is_400_and_names_why(customer: Any, change: Any, named: str) -> None:
    answer = customer.api.post("/v1/alert_rules", {**RULE, **change})

    assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_request")
    assert named in answer.body["message"]


def test_alerts_are_nobody_elses(customer: Any, make_customer: Any, operator: Any, nobody: Any) -> None:
    theirs = make_customer(credit="0")
    rule_id = ok(theirs.api.post("/v1/alert_rules", RULE))["alert_rule"]["alert_rule_id"]

    assert ok(customer.api.get("/v1/alert_rules"))["alert_rules"] == []
    for one in (rule_id, UNKNOWN):
        assert customer.api.get(f"/v1/alert_rules/{one}").status == 404
        assert customer.api.delete(f"/v1/alert_rules/{one}").status == 404
    for path in ("/v1/alerts", "/v1/alert_rules"):
        for organization_id in (theirs.organization_id, UNKNOWN):
            assert customer.api.get(f"{path}?organization_id={organization_id}").status == 403
        assert nobody.get(path).status == 401
        assert ok(operator.get(f"{path}?organization_id={theirs.organization_id}"))["next_page_token"] == ""


def test_a_bad_parameter_of_alerts_is_400_and_named(customer: Any) -> None:
    for query, named in (
        ("state=ok", "state"),
        ("from=x", "from"),
        ("limit=0", "limit"),
        ("alert_rule_id=x", "alert_rule"),
    ):
        answer = customer.api.get(f"/v1/alerts?{query}")
        assert answer.status == 400
        assert answer.body["message"].startswith(named)
    assert ok(customer.api.get(f"/v1/alerts?from={quote('2026-01-01T00:00:00+01:00')}&unknown=1"))["alerts"] == []
