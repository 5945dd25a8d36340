"""Accounts over REST: created, read, listed, changed, ended and followed."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
# A revoked key stops working, and a change of settings holds, within one second.
EFFECT_SECONDS = 1.2


def assert_is_error(answer: Any, status: int, kind: str, code: str) -> None:
    assert answer.status == status, answer
    error = answer.body["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert error["message"] == answer.body["message"]
    assert answer.headers["x-request-id"]


def ok(answer: Any) -> Any:
    assert answer.status == 200, answer
    return answer.body


def as_bearer(operator: Any, secret: str) -> Any:
    return type(operator)(operator.url, secret)


def test_an_organization_is_shown_with_all_its_settings(operator: Any, customer: Any) -> None:
    path = f"/v1/organizations/{customer.organization_id}"

    for api in (operator, customer.api):
        organization = ok(api.get(path))["organization"]

        assert organization.pop("create_time").endswith("Z")
        assert organization.pop("display_name").startswith("Customer ")
        assert organization == {
            "organization_id": customer.organization_id,
            "plan": "PLAN_FREE",
            "retention_days": 3,
            "payload_retained": False,
        }


def test_a_plan_changes_what_figures_show_from_that_moment(operator: Any, customer: Any) -> None:
    path = f"/v1/organizations/{customer.organization_id}"

    before = customer.api.get("/v1/requests")
    changed = ok(operator.patch(path, {"plan": "PLAN_ENTERPRISE", "retention_days": 200}))["organization"]
    after = customer.api.get("/v1/requests")

    assert (changed["plan"], changed["retention_days"]) == ("PLAN_ENTERPRISE", 200)
    assert before.headers["x-tollgate-retention-days"] == "3"
    assert after.headers["x-tollgate-retention-days"] == "200"


def test_a_patch_tells_what_is_left_out_from_what_is_false(customer: Any) -> None:
    path = f"/v1/organizations/{customer.organization_id}"

    retaining = ok(customer.api.patch(path, {"payload_retained": True}))["organization"]
    renamed = ok(customer.api.patch(path, {"display_name": "Acme Ltd"}))["organization"]
    no_longer = ok(customer.api.patch(path, {"payload_retained": False}))["organization"]

    assert [retaining["payload_retained"], renamed["payload_retained"], no_longer["payload_retained"]] == [
        True,
        True,
        False,
    ]
    assert no_longer["display_name"] == "Acme Ltd"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "nothing to change"),
        ({"displayName_": "misspelt"}, "nothing to change"),
        ({"display_name": ""}, "display_name"),
        ({"plan": "PLAN_ENTERPRISE"}, "retention_days"),
        ({"plan": "PLAN_ENTERPRISE", "retention_days": 366}, "retention_days"),
        ({"plan": "PLAN_GOLD"}, "plan"),
        ({"retention_days": "many", "plan": "PLAN_ENTERPRISE"}, "retention_days"),
        (b'{"plan": ', ""),
        (b"\xff\xfe", ""),
    ],
)
def test_a_patch_that_makes_no_sense_is_400_and_names_why(
    operator: Any, customer: Any, body: dict[str, Any] | bytes, named: str
) -> None:
    answer = operator.patch(f"/v1/organizations/{customer.organization_id}", body)

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")
    assert named in answer.body["message"]


def test_an_organization_cannot_give_itself_a_plan(customer: Any) -> None:
    answer = customer.api.patch(f"/v1/organizations/{customer.organization_id}", {"plan": "PLAN_PRO"})

    assert_is_error(answer, 403, "permission_error", "permission_denied")


def test_operators_walk_the_list_of_organizations_from_the_newest(
    operator: Any, make_customer: Callable[..., Any]
) -> None:
    made = [make_customer(credit="0").organization_id for _ in range(3)]

    first = ok(operator.get("/v1/organizations?limit=2"))
    second = ok(operator.get(f"/v1/organizations?limit=2&page_token={quote(first['next_page_token'])}"))

    seen = [organization["organization_id"] for organization in first["organizations"] + second["organizations"]]
    assert seen[:3] == made[::-1]
    assert len(seen) == 4


def test_a_project_is_read_changed_and_archived(customer: Any) -> None:
    api = customer.api

    assert ok(api.get("/v1/projects/web"))["project"]["mode"] == "PROJECT_MODE_CREDITS"
    changed = ok(api.patch("/v1/projects/web", {"mode": "PROJECT_MODE_OWN_KEYS"}))["project"]
    archived = ok(api.patch("/v1/projects/web", {"archived": True}))["project"]
    back = ok(api.patch("/v1/projects/web", {"archived": False}))["project"]

    assert changed["mode"] == archived["mode"] == "PROJECT_MODE_OWN_KEYS"
    assert archived["archive_time"].endswith("Z")
    assert "archive_time" not in back
    assert [project["project_id"] for project in ok(api.get("/v1/projects"))["projects"]] == ["lab", "web"]


def test_calls_for_an_archived_project_stop_within_a_second(customer: Any) -> None:
    assert customer.api.chat("Hello").status == 200

    ok(customer.api.patch("/v1/projects/web", {"archived": True}))
    time.sleep(EFFECT_SECONDS)
    refused = customer.api.chat("Hello")
    ok(customer.api.patch("/v1/projects/web", {"archived": False}))
    time.sleep(EFFECT_SECONDS)

    assert refused.status == 404
    assert customer.api.chat("Hello").status == 200


def test_a_key_lives_from_creation_to_revocation(customer: Any) -> None:
    limit = {"amount": "2.50", "period": "SPENDING_PERIOD_MONTH"}
    created = ok(
        customer.api.post("/v1/api_keys", {"project_id": "web", "display_name": "CI", "spending_limit": limit})
    )
    key_id, api = created["api_key"]["api_key_id"], as_bearer(customer.api, created["secret"])

    assert ok(api.get(f"/v1/api_keys/{key_id}"))["api_key"] == created["api_key"]
    assert created["api_key"]["spending_limit"] == {"amount": "2.5", "period": "SPENDING_PERIOD_MONTH"}
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    changed = ok(customer.api.patch(f"/v1/api_keys/{key_id}", {"expire_time": end, "clear_spending_limit": True}))
    assert "spending_limit" not in changed["api_key"]
    assert changed["api_key"]["expire_time"].startswith(end[:19])
    assert api.chat("Hello").status == 200

    ok(customer.api.post(f"/v1/api_keys/{key_id}:revoke", {}))
    time.sleep(EFFECT_SECONDS)
    assert_is_error(api.get(f"/v1/api_keys/{key_id}"), 401, "authentication_error", "invalid_api_key")
    assert api.chat("Hello").status == 401
    listed = ok(customer.api.get("/v1/api_keys?project_id=web"))["api_keys"]
    assert [key["api_key_id"] for key in listed] == [key_id]
    assert listed[0]["revoke_time"].endswith("Z")


def test_an_organization_limits_itself_and_is_told_when_its_limit_is_reached(operator: Any, customer: Any) -> None:
    path = f"/v1/organizations/{customer.organization_id}"
    limit = {"amount": "0.0001", "period": "SPENDING_PERIOD_DAY"}

    limited = ok(customer.api.patch(path, {"spending_limit": limit}))["organization"]
    refused = customer.api.chat("Hello")
    lifted = ok(customer.api.patch(path, {"clear_spending_limit": True}))["organization"]
    time.sleep(EFFECT_SECONDS)

    assert limited["spending_limit"] == limit
    assert_is_error(refused, 402, "insufficient_credits", "insufficient_credits")
    assert "the spending limit of this organization leaves" in refused.body["error"]["message"]
    assert "spending_limit" not in lifted
    assert customer.api.chat("Hello").status == 200


def test_no_answer_shows_a_secret_twice(operator: Any, customer: Any) -> None:
    secret = ok(customer.api.post("/v1/api_keys", {}))["secret"]
    ok(customer.api.post("/v1/provider_keys", {"provider": "anthropic", "secret": "sk-very-private"}))

    shown = str(
        [
            ok(api.get(path))
            for api in (customer.api, operator)
            for path in (
                f"/v1/api_keys?organization_id={customer.organization_id}",
                f"/v1/provider_keys?organization_id={customer.organization_id}",
                f"/v1/audit_entries?organization_id={customer.organization_id}",
            )
        ]
    )

    assert "anthropic" in shown
    assert secret not in shown
    assert "sk-very-private" not in shown


def test_own_provider_keys_are_listed_and_deleted(customer: Any) -> None:
    api = customer.api

    listed = ok(api.get("/v1/provider_keys"))["provider_keys"]
    assert [(key["organization_id"], key["provider"]) for key in listed] == [(customer.organization_id, "openai")]
    assert ok(api.delete("/v1/provider_keys/openai")) == {}
    assert ok(api.get("/v1/provider_keys")) == {"provider_keys": [], "next_page_token": ""}
    assert_is_error(api.delete("/v1/provider_keys/openai"), 404, "not_found_error", "not_found")


def test_the_audit_log_tells_who_changed_what(operator: Any, customer: Any) -> None:
    ok(operator.patch(f"/v1/organizations/{customer.organization_id}", {"plan": "PLAN_PRO"}))
    ok(customer.api.patch("/v1/projects/web", {"mode": "PROJECT_MODE_HYBRID"}))

    newest, before = ok(customer.api.get("/v1/audit_entries?limit=2"))["audit_entries"]

    assert (newest["action"], newest["subject"], newest["actor_scope"]) == (
        "project.update",
        "web",
        "SCOPE_ORGANIZATION",
    )
    assert (newest["before"], newest["after"]) == ({"mode": "CREDITS"}, {"mode": "HYBRID"})
    assert (before["action"], before["actor_scope"]) == ("organization.update", "SCOPE_OPERATOR")
    assert before["before"] == {"plan": "FREE", "retention_days": 3}
    assert before["after"] == {"plan": "PRO", "retention_days": 90}


def test_the_audit_log_is_filtered_by_kind_key_and_time(customer: Any) -> None:
    ok(customer.api.patch("/v1/projects/lab", {"archived": True}))
    [entry] = ok(customer.api.get("/v1/audit_entries?action=project.update"))["audit_entries"]
    key_id, moment = entry["actor_api_key_id"], quote(entry["create_time"])

    def actions(query: str) -> list[str]:
        return [found["action"] for found in ok(customer.api.get(f"/v1/audit_entries?{query}"))["audit_entries"]]

    assert actions(f"api_key_id={key_id}") == ["project.update"]
    assert actions(f"from={moment}") == ["project.update"]
    assert "project.update" not in actions(f"to={moment}")
    assert actions("subject=lab") == ["project.update", "project.create"]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/projects?limit=0", "limit"),
        ("/v1/projects?limit=", None),
        ("/v1/projects?page_token=x", "page_token"),
        ("/v1/api_keys?limit=1.5", "limit"),
        ("/v1/api_keys?project_id=a%20b", "project_id"),
        ("/v1/provider_keys?limit=501", "limit"),
        ("/v1/audit_entries?from=yesterday", "from"),
        ("/v1/audit_entries?to=2026-13-01T00:00:00Z", "to"),
        ("/v1/audit_entries?api_key_id=x", "api_key_id"),
        ("/v1/audit_entries?action=x", "action"),
        ("/v1/audit_entries?subject=%00", "subject"),
        ("/v1/audit_entries?unknown=x", None),
    ],
)
def test_a_bad_parameter_is_400_and_named(customer: Any, path: str, parameter: str | None) -> None:
    answer = customer.api.get(path)

    if parameter is None:
        assert answer.status == 200
    else:
        assert_is_error(answer, 400, "invalid_request_error", "invalid_request")
        assert answer.body["message"].startswith(parameter)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/v1/organizations/{organization_id}"),
        ("patch", "/v1/organizations/{organization_id}"),
        ("get", "/v1/projects/{project_id}"),
        ("patch", "/v1/projects/{project_id}"),
        ("get", "/v1/api_keys/{api_key_id}"),
        ("patch", "/v1/api_keys/{api_key_id}"),
        ("post", "/v1/api_keys/{api_key_id}:revoke"),
        ("delete", "/v1/provider_keys/{provider}"),
    ],
)
def test_a_foreign_id_in_a_path_is_404_in_the_words_for_one_that_does_not_exist(
    operator: Any, customer: Any, make_customer: Callable[..., Any], method: str, path: str
) -> None:
    other = make_customer()
    own = {"organization_id": other.organization_id}
    ok(operator.post("/v1/projects", {**own, "project_id": "theirs"}))
    ok(operator.post("/v1/provider_keys", {**own, "provider": "their-provider", "secret": "sk"}))
    key_id = ok(operator.post("/v1/api_keys", own))["api_key"]["api_key_id"]
    foreign = {**own, "project_id": "theirs", "api_key_id": key_id, "provider": "their-provider"}
    absent = {"organization_id": UNKNOWN, "project_id": "nowhere", "api_key_id": UNKNOWN, "provider": "no-provider"}
    # Says something to change for every kind of thing.
    body = {"display_name": "mine", "mode": "PROJECT_MODE_HYBRID"}

    def said(ids: dict[str, str]) -> str:
        send = getattr(customer.api, method)
        answer = send(path.format(**ids)) if method in ("get", "delete") else send(path.format(**ids), body)
        assert_is_error(answer, 404, "not_found_error", "not_found")
        message: str = answer.body["message"]
        for name in ids.values():
            message = message.replace(name, "…")
        return message

    assert said(foreign) == said(absent)


@pytest.mark.parametrize(
    "path", ["/v1/projects", "/v1/projects/web", "/v1/api_keys", "/v1/provider_keys", "/v1/audit_entries"]
)
def test_a_foreign_organization_in_a_filter_is_403_whether_it_exists_or_not(
    customer: Any, make_customer: Callable[..., Any], path: str
) -> None:
    for organization_id in (make_customer(credit="0").organization_id, UNKNOWN):
        answer = customer.api.get(f"{path}?organization_id={organization_id}")

        assert_is_error(answer, 403, "permission_error", "permission_denied")


def test_an_id_in_the_query_does_not_reach_around_the_path(customer: Any, make_customer: Callable[..., Any]) -> None:
    other = make_customer(credit="0")

    answer = customer.api.get(f"/v1/organizations/{customer.organization_id}?organization_id={other.organization_id}")

    assert_is_error(answer, 404, "not_found_error", "not_found")


def test_an_id_in_the_body_does_not_reach_around_the_path(customer: Any, make_customer: Callable[..., Any]) -> None:
    other = make_customer(credit="0")

    body = {"organization_id": other.organization_id, "payload_retained": True}
    answer = customer.api.patch(f"/v1/organizations/{customer.organization_id}", body)

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("patch", "/v1/organizations/{organization_id}"),
        ("post", "/v1/projects"),
        ("patch", "/v1/projects/web"),
        ("post", "/v1/api_keys"),
        ("delete", "/v1/provider_keys/openai"),
    ],
)
def test_a_read_only_key_reads_and_changes_nothing(customer: Any, method: str, path: str) -> None:
    secret = ok(customer.api.post("/v1/api_keys", {"read_only": True}))["secret"]
    reader = as_bearer(customer.api, secret)
    path = path.format(organization_id=customer.organization_id)

    send = getattr(reader, method)
    answer = send(path) if method == "delete" else send(path, {"payload_retained": True, "mode": "PROJECT_MODE_HYBRID"})

    assert_is_error(answer, 403, "permission_error", "read_only_key")
    assert ok(reader.get("/v1/projects"))["projects"]


@pytest.mark.parametrize(
    "path",
    ["/v1/organizations", f"/v1/organizations/{UNKNOWN}", "/v1/projects", "/v1/api_keys", "/v1/audit_entries?limit=x"],
)
def test_accounts_are_shown_to_nobody_without_a_key(nobody: Any, path: str) -> None:
    assert_is_error(nobody.get(path), 401, "authentication_error", "invalid_api_key")


def test_a_project_key_reads_its_project_and_itself(customer: Any) -> None:
    created = ok(customer.api.post("/v1/api_keys", {"project_id": "web"}))
    api = as_bearer(customer.api, created["secret"])

    assert [project["project_id"] for project in ok(api.get("/v1/projects"))["projects"]] == ["web"]
    assert ok(api.get("/v1/api_keys"))["api_keys"] == [created["api_key"]]
    assert_is_error(api.get("/v1/projects/lab"), 404, "not_found_error", "not_found")
    assert_is_error(api.get("/v1/audit_entries"), 403, "permission_error", "permission_denied")
    assert_is_error(api.patch("/v1/projects/web", {"archived": True}), 403, "permission_error", "permission_denied")


def test_a_key_that_ends_creates_none_that_lives_longer(customer: Any) -> None:
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ending = as_bearer(customer.api, ok(customer.api.post("/v1/api_keys", {"expire_time": end}))["secret"])

    assert_is_error(ending.post("/v1/api_keys", {}), 403, "permission_error", "permission_denied")
    assert ok(ending.post("/v1/api_keys", {"expire_time": end}))["secret"].startswith("tg_")
