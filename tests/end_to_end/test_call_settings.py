"""What is set over REST is what the router does, within a second."""

import time
from typing import Any

import pytest

from tests.end_to_end.conftest import eventually

# A change of settings holds within one second.
EFFECT_SECONDS = 1.2
# Offered by two providers, `openai` the first.
MODEL = "o4-mini"


def ok(answer: Any) -> Any:
    assert answer.status == 200, answer
    return answer.body


def set_project(customer: Any, **settings: Any) -> Any:
    project = ok(customer.api.patch("/v1/projects/web", {"settings": settings}))["project"]
    time.sleep(EFFECT_SECONDS)
    return project


def assert_limited(answer: Any, whose: str) -> None:
    assert answer.status == 429, answer
    assert (answer.body["error"]["type"], answer.body["error"]["code"]) == ("rate_limit_error", "rate_limited")
    assert answer.body["message"].startswith(f"This {whose} is limited to 2 calls a minute")
    assert 1 <= int(answer.headers["retry-after"]) <= 61


def test_a_keys_rate_limit_is_a_429_that_says_when_to_come_back_and_ends_when_it_is_taken_away(
    operator: Any, customer: Any
) -> None:
    created = ok(customer.api.post("/v1/api_keys", {"project_id": "web"}))
    key, path = type(operator)(operator.url, created["secret"]), f"/v1/api_keys/{created['api_key']['api_key_id']}"
    ok(key.chat("Hello"))

    limited = ok(customer.api.patch(path, {"rate_limit": {"requests_per_minute": 2}}))["api_key"]
    time.sleep(EFFECT_SECONDS)
    answers = [key.chat("Hello") for _ in range(3)]
    free = ok(customer.api.patch(path, {"rate_limit": {}}))["api_key"]
    time.sleep(EFFECT_SECONDS)

    assert limited["rate_limit"] == {"requests_per_minute": 2}
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert_limited(answers[2], "key")
    assert ok(key.get(path))["api_key"] == free
    assert "rate_limit" not in free
    ok(key.chat("Hello"))


def test_the_limits_of_a_project_hold_for_all_its_keys_and_those_of_end_users_for_each(customer: Any) -> None:
    set_project(customer, end_user_rate_limit={"requests_per_minute": 2})
    of_anna = [customer.api.chat("Hello", user="anna") for _ in range(3)]
    of_bert = customer.api.chat("Hello", user="bert")
    set_project(customer, rate_limit={"requests_per_minute": 2})
    of_all = [customer.api.chat("Hello") for _ in range(3)]

    assert [answer.status for answer in (*of_anna, of_bert, *of_all)] == [200, 200, 429, 200, 200, 200, 429]
    assert_limited(of_anna[2], "end user")
    assert_limited(of_all[2], "project")


def test_a_projects_cache_answers_again_until_it_is_turned_off(customer: Any) -> None:
    project = set_project(customer, cache_seconds=60)
    answers = [customer.api.chat("The same again", model=MODEL) for _ in range(2)]
    set_project(customer, cache_seconds=0)
    fresh = customer.api.chat("The same again", model=MODEL)

    assert project["settings"]["cache_seconds"] == 60
    assert [answer.headers["x-tollgate-cache"] for answer in (*answers, fresh)] == ["miss", "hit", "miss"]
    assert ok(answers[1]) == ok(answers[0])


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_projects_preference_and_answer_format_are_followed(customer: Any, provider: str) -> None:
    settings = {"preferred_providers": [provider], "answer_format": "ANSWER_FORMAT_META"}
    project = set_project(customer, provider_order="PROVIDER_ORDER_CONFIGURED", **settings)
    # Other tests make providers fail, and one that cools down comes last for everybody.
    preferred = eventually(
        lambda: customer.api.chat("Hello", model=MODEL),
        lambda answer: answer.headers["x-tollgate-provider"] == provider,
    )
    shown = ok(customer.api.get("/v1/projects/web"))["project"]
    emptied = set_project(customer)
    after = customer.api.chat("Hello", model=MODEL)

    assert preferred.body["meta"]["used_provider"] == provider
    assert shown == project
    assert project["settings"] == {"provider_order": "PROVIDER_ORDER_CONFIGURED", **settings}
    assert "settings" not in emptied
    assert "meta" not in after.body


def test_what_was_set_is_in_the_audit_log(customer: Any) -> None:
    ok(customer.api.patch("/v1/projects/web", {"settings": {"cache_seconds": 60, "preferred_providers": ["azure"]}}))

    (entry,) = ok(customer.api.get("/v1/audit_entries?action=project.update"))["audit_entries"]

    assert entry["before"] == {"cache_seconds": None, "preferred_providers": None}
    assert entry["after"] == {"cache_seconds": 60, "preferred_providers": "azure"}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/projects/web", {"settings": {"cache_seconds": -1}}, "settings.cache_seconds"),
        ("/v1/projects/web", {"settings": {"cache_seconds": "soon"}}, "cache_seconds"),
        ("/v1/projects/web", {"settings": {"provider_order": "CHEAPEST"}}, "provider_order"),
        ("/v1/projects/web", {"settings": {"preferred_providers": ["a b"]}}, "settings.preferred_providers[0]"),
        (
            "/v1/projects/web",
            {"settings": {"rate_limit": {"tokens_per_minute": -1}}},
            "settings.rate_limit.tokens_per_minute",
        ),
        ("/v1/projects/web", {"settings": {"rate_limit": {"requests_per_minute": 3e9}}}, "requests_per_minute"),
        ("{key}", {"rate_limit": {"concurrent_calls": 1_000_000_001}}, "rate_limit.concurrent_calls"),
    ],
)
def test_a_setting_that_cannot_be_is_400_and_named(customer: Any, path: str, body: dict[str, Any], named: str) -> None:
    key_id = ok(customer.api.post("/v1/api_keys", {}))["api_key"]["api_key_id"]
    answer = customer.api.patch(path.format(key=f"/v1/api_keys/{key_id}"), body)

    assert answer.status == 400, answer
    assert (answer.body["error"]["type"], answer.body["error"]["code"]) == ("invalid_request_error", "invalid_request")
    assert named in answer.body["message"]
