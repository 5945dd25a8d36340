"""What no price can say, or lets another model answer, is asked for with a key of one's own or not at all."""

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
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
HI = [{"role": "user", "content": "Hi"}]
FAST = {"model": "claude-sonnet", "max_tokens": 9, "messages": HI, "speed": "fast"}
SEARCHING = {"model": "claude-or-gpt", "messages": HI, "web_search_options": {}}


async def ask(router: Router, key: str, path: str, members: dict[str, Any]) -> Answer:
    return await router.send("POST", path, orjson.dumps(members), key)


async def test_on_credit_it_is_a_400_that_names_the_member_and_asks_nobody(router: Router, ledger: FakeLedger) -> None:
    for mode in (CREDITS, HYBRID):
        # A key for somebody who does not offer the model is no own key for it.
        answer = await ask(router, ledger.grant(project_mode=mode, own_keys={"groq": "sk-own-groq"}), MESSAGES, FAST)
        record = await ledger.record(answer.request_id)

        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
        assert answer.json["error"]["message"].startswith("speed can change what the call costs")
        assert (record.outcome, list(record.attempts)) == (usage_pb2.OUTCOME_REFUSED, [])


@pytest.mark.parametrize("mode", [OWN_KEYS, HYBRID], ids=["own keys", "hybrid"])
async def test_with_an_own_key_it_goes_on(router: Router, ledger: FakeLedger, mode: int) -> None:
    key = ledger.grant(project_mode=mode, own_keys={"anthropic": "sk-own-anthropic"})
    answer = await ask(router, key, MESSAGES, FAST)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200, answer
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY]


async def test_hybrid_does_not_go_on_with_credit(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(project_mode=HYBRID, own_keys={"anthropic": "sk-refused"})
    answer = await ask(router, key, MESSAGES, FAST)
    record = await ledger.record(answer.request_id)

    assert answer.status == 502
    assert [attempt.funding for attempt in record.attempts] == [usage_pb2.FUNDING_OWN_KEY]


async def test_who_does_not_count_searches_is_passed_over_for_who_does(router: Router, ledger: FakeLedger) -> None:
    answer = await ask(router, ledger.grant(), CHAT, SEARCHING)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200, answer
    assert [attempt.provider for attempt in record.attempts] == ["anthropic"]
