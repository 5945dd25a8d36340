"""Which requests are the same, and which answers are given again."""

import orjson
import pytest

from services.router.calls.response_cache import (
    ANSWER_BYTES_MAX,
    CachedAnswer,
    ResponseCache,
    cache_name,
    wants_no_cache,
)
from services.router.formats.endpoint import ModelRequest
from services.router.formats.registry import CHAT_COMPLETIONS
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse
from tollgate.ledger.v1.usage_pb2 import UsageRecord

WEB = ResolveKeyResponse(
    organization_id="acme", project_id="web", project_mode=directory_service_pb2.PROJECT_MODE_CREDITS
)


def request(**members: object) -> ModelRequest:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **members}
    return CHAT_COMPLETIONS.read(orjson.dumps(body), {})


def answer(size: int = 2) -> CachedAnswer:
    return CachedAnswer(200, "application/json", bytes(size), b"", UsageRecord())


@pytest.mark.parametrize(
    "members", [{"user": "anna"}, {"metadata": {"order": "7"}}, {"project_id": "web"}], ids=lambda each: str([*each])
)
def test_who_asks_makes_no_difference(members: dict[str, object]) -> None:
    assert cache_name(WEB, request(**members)) == cache_name(WEB, request())


def test_neither_does_the_order_of_members_nor_white_space() -> None:
    body = b'{ "messages": [{"content": "Hi", "role": "user"}],\n "model": "gpt-4o" }'

    assert cache_name(WEB, CHAT_COMPLETIONS.read(body, {})) == cache_name(WEB, request())


@pytest.mark.parametrize(
    "members",
    [
        {"model": "gpt-4o-mini"},
        {"temperature": 0},
        {"stream": True},
        {"messages": [{"role": "user", "content": "Hi "}]},
    ],
    ids=lambda each: str([*each]),
)
def test_whatever_else_is_asked_is_another_request(members: dict[str, object]) -> None:
    assert cache_name(WEB, request(**members)) != cache_name(WEB, request())


@pytest.mark.parametrize("other", [{"organization_id": "zeta"}, {"project_id": "app"}, {"project_mode": 2}])
def test_projects_do_not_see_each_other_s_answers(other: dict[str, object]) -> None:
    grant = ResolveKeyResponse()
    grant.CopyFrom(WEB)
    for name, value in other.items():
        setattr(grant, name, value)

    assert cache_name(grant, request()) != cache_name(WEB, request())


def test_an_answer_is_given_again_for_as_long_as_the_project_wants() -> None:
    now = 0.0
    cache = ResponseCache(10_000, clock=lambda: now)
    cache.put(b"name", answer())
    now = 59.9
    fresh = cache.get(b"name", 60)
    now = 60.0

    assert fresh is not None
    assert cache.get(b"name", 60) is None
    assert cache.size_bytes == 0


def test_the_cache_never_holds_more_than_its_bytes_and_drops_what_was_not_asked_for_longest() -> None:
    cache = ResponseCache(10_000)
    for number in range(4):
        cache.put(bytes([number]), answer(1_000))
    cache.get(b"\x00", 60)
    cache.put(b"\x04", answer(1_000))

    assert cache.size_bytes <= 10_000
    assert cache.get(b"\x00", 60) is not None
    assert cache.get(b"\x01", 60) is None


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    cache = ResponseCache(100_000_000)
    cache.put(b"name", answer(ANSWER_BYTES_MAX + 1))

    assert cache.get(b"name", 60) is None


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), ("true", True), ("1", True), ("", True), ("false", False)]
)
def test_a_call_can_ask_to_be_made_in_any_case(value: str | None, expected: bool) -> None:
    assert wants_no_cache({} if value is None else {"x-tollgate-no-cache": value}) is expected
