"""Every refusal has the documented body, whoever refuses."""

from collections.abc import Callable
from typing import Any

import pytest

Error = tuple[int, str, str]


def assert_is_error(answer: Any, status: int, kind: str, code: str) -> None:
    assert answer.status == status, answer
    error = answer.body["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert error["message"]
    assert answer.body["message"] == error["message"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/activity", "/v1/activity", "/activity?days=abc", "/v1/requests", "/v1/balance"])
def test_figures_without_a_key_are_401(nobody: Any, path: str) -> None:
    assert_is_error(nobody.get(path), 401, "authentication_error", "invalid_api_key")


def test_figures_with_an_unknown_key_are_401_whatever_else_is_wrong(nobody: Any) -> None:
    answer = nobody.get("/activity?days=abc", authorization="Bearer tg_unknown")

    assert_is_error(answer, 401, "authentication_error", "invalid_api_key")


def test_a_model_call_without_a_key_is_401(nobody: Any) -> None:
    answer = nobody.chat("Hello")

    assert_is_error(answer, 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/activity?days=0", "days"),
        ("/activity?from=2026-01-01", "to"),
        ("/activity?timezone=Mars/Olympus", "timezone"),
        ("/activity?groupBy=mood", "groupBy"),
        ("/v1/requests?limit=501", "limit"),
    ],
)
def test_a_bad_parameter_is_400_and_named(customer: Any, path: str, parameter: str) -> None:
    answer = customer.api.get(path)

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")
    assert parameter in answer.body["message"]


def test_an_unknown_path_is_404(customer: Any) -> None:
    assert_is_error(customer.api.get("/v1/nothing"), 404, "not_found_error", "unknown_path")


def test_another_organization_is_403_in_a_filter_and_404_in_a_path(
    customer: Any, make_customer: Callable[..., Any]
) -> None:
    other = make_customer()
    request_id = other.api.chat("Hello").headers["x-tollgate-request-id"]
    other.api.call(request_id)

    filtered = customer.api.get(f"/activity?organization_id={other.organization_id}")
    named = customer.api.get(f"/v1/requests/{request_id}")

    assert_is_error(filtered, 403, "permission_error", "permission_denied")
    assert_is_error(named, 404, "not_found_error", "not_found")


def test_an_unknown_model_is_404(customer: Any) -> None:
    answer = customer.api.chat("Hello", model="gpt-nothing")

    assert_is_error(answer, 404, "not_found_error", "model_not_found")


def test_a_call_without_credit_is_402_and_reaches_no_provider(make_customer: Callable[..., Any]) -> None:
    customer = make_customer(credit="0")

    answer = customer.api.chat("Hello")

    assert_is_error(answer, 402, "insufficient_credits", "insufficient_credits")
    call = customer.api.call(answer.headers["x-tollgate-request-id"])
    assert call["attempts"] == []
    assert customer.api.today(1)["clientErrorCount"] == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": 1}', b'{"model": "gpt-4o"}', b"\xff\xfe"])
def test_a_body_that_is_no_chat_completion_is_400(customer: Any, body: bytes) -> None:
    answer = customer.api.post("/v1/chat/completions", body, x_tollgate_project="web", content_type="application/json")

    assert_is_error(answer, 400, "invalid_request_error", "invalid_request")


@pytest.mark.parametrize(
    "path", ["/tollgate.ledger.v1.UsageService/RecordUsage", "/tollgate.ledger.v1.DirectoryService/ResolveKey"]
)
def test_internal_services_are_not_there_for_the_world(operator: Any, path: str) -> None:
    answer = operator.post(path, b"", content_type="application/grpc")

    assert answer.status == 404 or answer.headers.get("grpc-status") not in (None, "0")
