"""What is refused, in which words, and what of it is recorded."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router, chat_body
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import directory_service_pb2, usage_pb2

CHAT = "/v1/chat/completions"


def assert_refused(answer: Answer, status: int, kind: str, code: str) -> None:
    assert answer.status == status, answer
    error = answer.json["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert answer.json["message"] == error["message"] != ""
    assert answer.headers["content-type"] == "application/json"
    assert answer.request_id


async def test_without_a_valid_key_nothing_else_is_looked_at(router: Router) -> None:
    for key in (None, "tg_unknown"):
        answer = await router.send("POST", CHAT, b"not even JSON", key)
        assert_refused(answer, 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("grant", "error"),
    [
        pytest.param({"read_only": True}, (403, "permission_error", "read_only_key"), id="read-only key"),
        pytest.param(
            {"credit_available": False}, (402, "insufficient_credits", "insufficient_credits"), id="no credit"
        ),
        pytest.param(
            {"project_mode": directory_service_pb2.PROJECT_MODE_OWN_KEYS},
            (400, "invalid_request_error", "own_key_missing"),
            id="no own key",
        ),
    ],
)
async def test_a_refusal_is_recorded_without_any_attempt(
    router: Router, ledger: FakeLedger, grant: Mapping[str, Any], error: tuple[int, str, str]
) -> None:
    answer = await router.chat(ledger.grant(**grant))
    record = await ledger.record(answer.request_id)

    assert_refused(answer, *error)
    assert (record.outcome, record.status, record.error_type) == (usage_pb2.OUTCOME_REFUSED, error[0], error[2])
    assert not record.attempts and not record.HasField("usage")
    is_own = grant.get("project_mode") == directory_service_pb2.PROJECT_MODE_OWN_KEYS
    assert record.funding == (usage_pb2.FUNDING_OWN_KEY if is_own else usage_pb2.FUNDING_CREDITS)


async def test_a_model_nobody_offers_is_a_404_that_is_recorded(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), model="gpt-nothing")
    record = await ledger.record(answer.request_id)

    assert_refused(answer, 404, "not_found_error", "model_not_found")
    assert (record.requested_model, record.model, record.provider) == ("gpt-nothing", "", "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half a JSON"),
        pytest.param(b'{"model": "\xff"}', id="not UTF-8"),
        pytest.param(orjson.dumps({"model": "gpt-4o"}), id="no messages"),
        pytest.param(orjson.dumps({"messages": [{"role": "user", "content": "Hi"}]}), id="no model"),
        pytest.param(orjson.dumps({"model": ["gpt-4o"], "messages": [1]}), id="wrong types"),
    ],
)
async def test_a_bad_body_is_a_400_that_is_recorded(router: Router, ledger: FakeLedger, body: bytes) -> None:
    answer = await router.send("POST", CHAT, body, ledger.grant())

    assert_refused(answer, 400, "invalid_request_error", "invalid_request")
    assert (await ledger.record(answer.request_id)).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-tollgate-workflow": "w" * 65}, id="long workflow"),
        pytest.param({f"x-tollgate-metadata-{n}": "v" for n in range(17)}, id="much metadata"),
        pytest.param({"x-tollgate-metadata-note": "v" * 257}, id="long metadata"),
        pytest.param({"x-tollgate-metadata-" + "k" * 65: "v"}, id="long key"),
        pytest.param({"x-tollgate-project": "a/b"}, id="a project with a slash"),
    ],
)
async def test_what_is_attached_has_limits(router: Router, ledger: FakeLedger, headers: Mapping[str, str]) -> None:
    answer = await router.chat(ledger.grant(), headers=headers)

    assert_refused(answer, 400, "invalid_request_error", "invalid_request")
    assert (await ledger.record(answer.request_id)).status == 400


async def test_a_body_above_16_mib_is_refused_whether_its_length_is_told_or_not(
    router: Router, ledger: FakeLedger
) -> None:
    large = chat_body("x" * (16 * 1024 * 1024))
    told = await router.send("POST", CHAT, large, ledger.grant())

    assert_refused(told, 413, "invalid_request_error", "too_large")
    assert (await ledger.record(told.request_id)).status == 413
    assert_refused(await router.send_in_pieces(CHAT, large, ledger.grant()), 413, "invalid_request_error", "too_large")


async def test_a_body_of_almost_16_mib_goes_through(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "x" * (15 * 1024 * 1024))

    assert answer.status == 200


async def test_an_operator_calls_no_models(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(scope=access_pb2.SCOPE_OPERATOR, organization_id="", project_id="")

    assert_refused(await router.chat(key), 403, "permission_error", "permission_denied")


async def test_a_key_for_all_projects_has_to_name_one(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(project_id=""))

    assert_refused(answer, 400, "invalid_request_error", "invalid_request")
    assert "x-tollgate-project" in answer.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_path_or_method_has_the_documented_body(
    router: Router, method: str, path: str, status: int, code: str
) -> None:
    answer = await router.send(method, path, None, None)

    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert_refused(answer, status, kind, code)
