"""What a provider keeps under the platform's key is nobody's: no organization reads there what another left."""

from typing import Any

import orjson
import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router
from tollgate.ledger.v1 import directory_service_pb2, usage_pb2

CREDITS, OWN_KEYS, HYBRID = (
    directory_service_pb2.PROJECT_MODE_CREDITS,
    directory_service_pb2.PROJECT_MODE_OWN_KEYS,
    directory_service_pb2.PROJECT_MODE_HYBRID,
)
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
OWN = {"openai": "sk-own-openai", "anthropic": "sk-own-anthropic"}
EARLIER = {"model": "gpt-4o", "input": "Hi", "previous_response_id": "resp_1"}


def file_in_chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}


CONTAINER = {
    "model": "claude-sonnet",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hi"}],
    "container": "container_1",
}
every_format = pytest.mark.parametrize(
    ("path", "members", "named"),
    [
        pytest.param(RESPONSES, EARLIER, "previous_response_id", id="response"),
        pytest.param(RESPONSES, {"model": "gpt-4o", "prompt": {"id": "pmpt_1"}}, "prompt", id="stored prompt"),
        pytest.param(RESPONSES, {"model": "gpt-4o", "input": "Hi", "store": True}, "store", id="to be stored"),
        pytest.param(CHAT, file_in_chat("gpt-4o"), "file_id", id="chat"),
        pytest.param(CHAT, file_in_chat("claude-sonnet"), "file_id", id="translated chat"),
        pytest.param(MESSAGES, CONTAINER, "container", id="message"),
    ],
)


async def ask(router: Router, key: str, path: str, members: dict[str, Any], **headers: str) -> Answer:
    return await router.send("POST", path, orjson.dumps(members), key, headers)


@every_format
async def test_without_an_own_key_it_is_a_400_that_names_the_member_and_asks_nobody(
    router: Router, ledger: FakeLedger, path: str, members: dict[str, Any], named: str
) -> None:
    for mode in (CREDITS, HYBRID):
        # A key for somebody who does not offer the model is no own key for it.
        answer = await ask(router, ledger.grant(project_mode=mode, own_keys={"groq": "sk-own-groq"}), path, members)
        record = await ledger.record(answer.request_id)

        assert answer.status == 400, answer
        assert answer.json["error"]["code"] == "invalid_request"
        assert answer.json["error"]["message"].startswith(f"{named} is about what a provider keeps")
        assert answer.json.get("type") == ("error" if path == MESSAGES else None)
        assert (record.outcome, list(record.attempts)) == (usage_pb2.OUTCOME_REFUSED, [])


@pytest.mark.parametrize("mode", [OWN_KEYS, HYBRID], ids=["own keys", "hybrid"])
@pytest.mark.parametrize(
    ("path", "members"),
    [pytest.param(RESPONSES, EARLIER, id="response"), pytest.param(MESSAGES, CONTAINER, id="message")],
)
async def test_with_an_own_key_it_goes_on(
    router: Router, ledger: FakeLedger, mode: int, path: str, members: dict[str, Any]
) -> None:
    answer = await ask(router, ledger.grant(project_mode=mode, own_keys=OWN), path, members)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200, answer
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY]


@pytest.mark.parametrize(
    ("own_key", "prompt"),
    [("sk-refused", "Hi"), ("sk-own-good", "Hi simulate:status=429"), ("sk-own-good", "Hi simulate:status=503")],
    ids=["refused key", "throttled key", "provider down"],
)
async def test_hybrid_does_not_go_on_with_credit(router: Router, ledger: FakeLedger, own_key: str, prompt: str) -> None:
    key = ledger.grant(project_mode=HYBRID, own_keys={"openai": own_key})
    answer = await ask(router, key, RESPONSES, {**EARLIER, "input": prompt})
    record = await ledger.record(answer.request_id)

    assert answer.status == 502
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY]


async def test_a_response_is_kept_where_the_organization_pays_itself_and_nowhere_else(
    router: Router, ledger: FakeLedger
) -> None:
    members = {"model": "gpt-4o", "input": "Hi"}
    on_credit = await ask(router, ledger.grant(), RESPONSES, members)
    on_own_key = await ask(router, ledger.grant(project_mode=HYBRID, own_keys=OWN), RESPONSES, members)
    fallen_back = await ask(
        router, ledger.grant(project_mode=HYBRID, own_keys={"openai": "sk-refused"}), RESPONSES, members
    )

    assert [each.json["store"] for each in (on_credit, on_own_key, fallen_back)] == [False, True, False]
