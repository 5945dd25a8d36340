"""What a call can cost at most, from what the client sent."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.credit.worst_case import (
    GENERATED_IMAGE_TOKENS_MAX,
    IMAGE_TOKENS_MAX,
    OUTPUT_TOKENS_MAX,
    REFERRED_TOKENS_MAX,
    ROUNDING_PICO,
    SEARCHED_TOKENS_MAX,
    SEARCHES_MAX,
    TOOL_TOKENS_MAX,
    WRAPPING_TOKENS_MAX,
    Demand,
    bound_from_proto,
    storage_pico,
    worst_case_pico,
)
from services.router.formats.estimation import tokenizer_for
from services.router.formats.registry import ENDPOINT_BY_PATH
from services.router.routing.routing import Candidate
from tollgate.ledger.v1.credit_service_pb2 import PriceBound
from tollgate.ledger.v1.usage_pb2 import Usage

CHAT = "/v1/chat/completions"
# One pico-USD for a token of input, a million for one of output: both can be read off the sum.
PICO, MICRO = "0.000000000001", "0.000001"
PER_TOKEN = PriceBound(input_token=PICO, output_token=MICRO, media_input_token=PICO, media_output_token=MICRO)


def worst(
    members: Mapping[str, Any], *, path: str = CHAT, output_tokens_max: int | None = None, **bound: Any
) -> tuple[int, int]:
    """Tokens of output, and of input beyond the bytes of the body."""
    body = orjson.dumps({"model": "gpt-4o", **members})
    request = ENDPOINT_BY_PATH[path].read(body, {})
    candidate = Candidate("openai", "gpt-4o", "gpt-4o", output_tokens_max)
    prices = PriceBound()
    prices.CopyFrom(PER_TOKEN)
    prices.MergeFrom(PriceBound(**bound))
    pico = worst_case_pico(Demand(request), candidate, bound_from_proto(prices), payload_retained=False)
    output_tokens, input_tokens = divmod(pico - ROUNDING_PICO, 10**6)
    return output_tokens, input_tokens - len(body)


def chat(content: object = "hi", **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **members}


@pytest.mark.parametrize(
    ("members", "output_tokens_max", "expected"),
    [
        pytest.param({}, None, OUTPUT_TOKENS_MAX, id="nobody says"),
        pytest.param({}, 4_096, 4_096, id="the model's maximum"),
        pytest.param({"max_tokens": 100}, 4_096, 100, id="the caller's"),
        pytest.param({"max_completion_tokens": 100}, None, 100, id="the caller's, as it is called today"),
        pytest.param({"max_tokens": 9_000}, 4_096, 4_096, id="the caller's, beyond what the model can"),
        pytest.param({"max_tokens": 200_000}, None, 200_000, id="the caller's, beyond what is usual"),
        pytest.param({"max_tokens": 100, "n": 3}, None, 300, id="several answers"),
        pytest.param(
            {"max_tokens": 100, "n": 2, "best_of": 5}, None, 500, id="several answers, of which some are given"
        ),
        pytest.param({"max_tokens": 100, "n": None, "best_of": None}, None, 100, id="of how many nobody says"),
        pytest.param({"max_tokens": "100"}, 4_096, 4_096, id="not a number"),
    ],
)
def test_the_output_is_what_may_be_written(
    members: dict[str, Any], output_tokens_max: int | None, expected: int
) -> None:
    assert worst(chat(**members), output_tokens_max=output_tokens_max)[0] == expected


@pytest.mark.parametrize(
    ("path", "members"),
    [
        pytest.param(CHAT, chat(max_output_tokens=1), id="chat completions"),
        pytest.param("/v1/responses", {"input": "hi", "max_tokens": 1}, id="responses"),
        pytest.param("/v1/responses", {"input": "hi", "max_completion_tokens": 1}, id="responses, as in chat today"),
    ],
)
def test_a_limit_by_the_name_of_another_endpoint_is_none(path: str, members: dict[str, Any]) -> None:
    assert worst(members, path=path)[0] == OUTPUT_TOKENS_MAX


def test_predicted_tokens_that_are_rejected_are_written_too() -> None:
    prediction = {"type": "content", "content": "x" * 1_000}

    assert worst(chat(max_tokens=100, prediction=prediction))[0] == 100 + len(orjson.dumps(prediction))
    assert worst(chat(max_tokens=100, prediction=None))[0] == 100


SUMMARIES = {"context_management": {"edits": [{"type": "compact_20260112"}]}}


@pytest.mark.parametrize("members", [SUMMARIES, {"compaction": {"type": "summarize"}}], ids=["when long", "asked for"])
def test_to_summarise_a_conversation_it_is_read_and_written_once_more(members: dict[str, Any]) -> None:
    ordinary = worst(chat(max_tokens=100), path="/v1/messages", output_tokens_max=4_096)
    body_bytes = len(orjson.dumps({"model": "gpt-4o", **chat(max_tokens=100), **members}))

    output_tokens, beyond_bytes = worst(chat(max_tokens=100, **members), path="/v1/messages", output_tokens_max=4_096)

    assert output_tokens == ordinary[0] + 4_096
    assert beyond_bytes == 2 * ordinary[1] + body_bytes


def test_to_forget_the_results_of_tools_nothing_is_read_again() -> None:
    forgetting = {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}

    assert worst(chat(max_tokens=100, **forgetting), path="/v1/messages") == (100, WRAPPING_TOKENS_MAX)


@pytest.mark.parametrize("members", [{}, {"modalities": ["text", "audio"]}], ids=["unasked", "asked for"])
def test_an_answer_may_be_speech_or_images_whether_they_are_asked_for_or_not(members: dict[str, Any]) -> None:
    output_tokens, _ = worst(chat(max_tokens=100, **members), media_output_token="0.000008")

    assert output_tokens == 800


def test_a_prompt_may_be_written_to_the_dearest_cache() -> None:
    """The ledger's bound of input includes writes for an hour."""
    hour = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    members = {"messages": [{"role": "user", "content": [hour]}], "max_tokens": 1}
    request = ENDPOINT_BY_PATH["/v1/messages"].read(orjson.dumps({"model": "claude", **members}), {})
    bound = bound_from_proto(PriceBound(input_token="0.00001"))
    candidate = Candidate("anthropic", "claude", "claude")
    tokens = len(request.body) + WRAPPING_TOKENS_MAX

    assert worst_case_pico(Demand(request), candidate, bound, payload_retained=False) == tokens * 10**7 + ROUNDING_PICO


def test_a_prompt_has_at_most_as_many_tokens_as_bytes() -> None:
    assert worst(chat(max_tokens=1))[1] == WRAPPING_TOKENS_MAX


def test_tools_bring_a_hidden_prompt() -> None:
    assert worst(chat(max_tokens=1, tools=[]))[1] == WRAPPING_TOKENS_MAX + TOOL_TOKENS_MAX


@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_its_request_has_bytes(text: str) -> None:
    assert tokenizer_for("gpt-4o").count(text) <= len(orjson.dumps(text))


def test_an_image_counts_as_an_image_and_not_as_its_base64() -> None:
    url = "data:image/png;base64," + 40_000 * "A"
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]

    assert worst(chat(parts, max_tokens=1))[1] == WRAPPING_TOKENS_MAX + IMAGE_TOKENS_MAX - len(url)


FAKE = {"type": "image", "source": {"type": "base64", "data": "word " * 10_000}}


@pytest.mark.parametrize(
    ("path", "members"),
    [
        pytest.param(
            "/v1/messages",
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": {"a": FAKE}}]}]},
            id="what a tool was called with",
        ),
        pytest.param(
            "/v1/messages",
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": FAKE}]}]},
            id="the same, as a whole",
        ),
        pytest.param(CHAT, chat() | {"metadata": {"content": FAKE}}, id="metadata"),
        pytest.param(CHAT, chat() | {"response_format": {"messages": [FAKE]}}, id="a schema"),
    ],
)
def test_what_only_looks_like_an_image_counts_with_all_its_bytes(path: str, members: dict[str, Any]) -> None:
    beyond_bytes = worst({"max_tokens": 1, **members}, path=path)[1]

    assert beyond_bytes == WRAPPING_TOKENS_MAX + IMAGE_TOKENS_MAX


@pytest.mark.parametrize(
    "url", ["data:application/pdf;base64,AAAA", "data:video/mp4;base64,AAAA", "https://example.com/a.mp4?b=c.png"]
)
def test_an_image_that_is_none_may_be_as_long_as_a_context(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}

    assert worst(chat([part], max_tokens=1))[1] == WRAPPING_TOKENS_MAX + REFERRED_TOKENS_MAX


@pytest.mark.parametrize("url", ["", "https://[", "data:", "https://example.com/a", 7, None])
def test_whatever_stands_where_an_image_should_it_is_estimated(url: object) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}

    assert worst(chat([part], max_tokens=1))[1] > 0


def test_a_request_counts_with_its_bytes_as_they_are_sent() -> None:
    body = b'{"model":"gpt-4o","max_tokens":1,"messages":[],"seeds":[' + b",".join([b"1e15"] * 100) + b"]}"
    request = ENDPOINT_BY_PATH[CHAT].read(body.replace(b"[]", b'[{"role":"user","content":"hi"}]'), {})
    bound = bound_from_proto(PriceBound(input_token="0.000001"))
    candidate = Candidate("openai", "gpt-4o", "gpt-4o")

    assert worst_case_pico(Demand(request), candidate, bound, payload_retained=False) // 10**6 >= len(request.written)


DOCUMENT = b'{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}'
SEARCH = b'{"type":"web_search_20250305","name":"web_search"}'


def worst_of_bytes(part: bytes) -> int:
    body = b'{"model":"claude","max_tokens":1,"messages":[{"role":"user","content":[' + part + b"]}]}"
    bound = bound_from_proto(PriceBound(input_token="0.000001", media_input_token="0.000001"))
    candidate = Candidate("anthropic", "claude", "claude")
    request = ENDPOINT_BY_PATH["/v1/messages"].read(body, {})
    return worst_case_pico(Demand(request), candidate, bound, payload_retained=False) // 10**6 - len(body)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(DOCUMENT, id="as SDKs write"),
        pytest.param(DOCUMENT.replace(b'":', b'" :\n'), id="with spaces"),
        pytest.param(DOCUMENT.replace(b"document", b"\\u0064ocument"), id="escaped"),
        pytest.param(DOCUMENT.replace(b'{"type"', b'{"type":"text","type"'), id="of two types"),
        pytest.param(b'{"type":"input_file","file\\u005furl":"https://example.com/a.pdf"}', id="an escaped name"),
        pytest.param(b'{"type":"video_url","video_url":{"url":"https://example.com/a"}}', id="a film"),
        pytest.param(b'{"type":"audio_url","audio_url":{"url":"https://example.com/a"}}', id="a recording"),
        pytest.param(b'{"type":"input_video","input_video":"https://example.com/a"}', id="a film by another name"),
        pytest.param(b'{"type":"file","file":{"file_data":"data:application/pdf;base64,AAAA"}}', id="compressed"),
    ],
)
def test_what_is_only_referred_to_may_be_as_long_as_a_context_however_it_is_written(part: bytes) -> None:
    assert worst_of_bytes(part) == WRAPPING_TOKENS_MAX + REFERRED_TOKENS_MAX


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"web_fetch_20250910","name":"web_fetch"}',
        b'{"type": "mcp", "server_url":"https://example.com"}',
        b'{"type":"mcp_toolset","mcp_server_name":"a"}',
    ],
)
def test_what_the_provider_fetches_is_read_too(part: bytes) -> None:
    assert worst_of_bytes(part) == WRAPPING_TOKENS_MAX + SEARCHED_TOKENS_MAX


def test_a_text_that_speaks_of_fetching_fetches_nothing() -> None:
    assert worst_of_bytes(b'{"type":"text","text":"\\"type\\":\\"web_fetch\\" fetch mcp"}') == WRAPPING_TOKENS_MAX


@pytest.mark.parametrize(
    ("path", "members", "searches"),
    [
        ("/v1/messages", {"messages": chat()["messages"], "max_tokens": 1, "tools": [{"max_uses": 3}]}, SEARCHES_MAX),
        ("/v1/messages", {"messages": chat()["messages"], "max_tokens": 1, "tools": [{"max_uses": 50}]}, 50),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 1, "max_tool_calls": 70, "tools": []}, 70),
    ],
)
def test_there_are_as_many_searches_as_the_call_allows(path: str, members: dict[str, Any], searches: int) -> None:
    body = orjson.dumps({"model": "searching", **members})
    bound = bound_from_proto(PriceBound(web_search="0.01"))
    candidate = Candidate("p", "searching", "searching")

    worst_pico = worst_case_pico(
        Demand(ENDPOINT_BY_PATH[path].read(body, {})), candidate, bound, payload_retained=False
    )

    assert worst_pico == searches * 10**10 + ROUNDING_PICO


@pytest.mark.parametrize("part", [SEARCH, SEARCH.replace(b"s", b"\\u0073")], ids=["as SDKs write", "escaped"])
def test_searches_bring_what_they_find_however_they_are_written(part: bytes) -> None:
    assert worst_of_bytes(part) == WRAPPING_TOKENS_MAX + SEARCHED_TOKENS_MAX


def test_a_request_of_any_depth_can_be_estimated() -> None:
    assert worst_of_bytes(b"[" * 200 + b'{"type":"image"}' + b"]" * 200) > 0


def test_an_embedding_writes_nothing() -> None:
    assert worst({"input": "hi"}, path="/v1/embeddings")[0] == 0


def test_generated_images_count_one_by_one_and_by_their_tokens() -> None:
    members = {"prompt": "a cat", "n": 2}

    output_tokens, beyond_bytes = worst(members, path="/v1/images/generations", output_image="0.04")

    assert (output_tokens, beyond_bytes) == (2 * (GENERATED_IMAGE_TOKENS_MAX + 40_000), WRAPPING_TOKENS_MAX)


def test_what_is_kept_is_reserved_for_too() -> None:
    request = ENDPOINT_BY_PATH[CHAT].read(orjson.dumps({"model": "gpt-4o", **chat(max_tokens=100)}), {})
    bound = bound_from_proto(PriceBound(storage_token="0.00000001"))
    candidate = Candidate("openai", "gpt-4o", "gpt-4o")
    tokens = len(request.body) + WRAPPING_TOKENS_MAX + 100

    assert worst_case_pico(Demand(request), candidate, bound, payload_retained=True) == tokens * 10_000 + ROUNDING_PICO
    assert worst_case_pico(Demand(request), candidate, bound, payload_retained=False) == 0


def test_where_an_own_key_pays_only_what_is_kept_is_reserved_for() -> None:
    request = ENDPOINT_BY_PATH[CHAT].read(orjson.dumps({"model": "gpt-4o", **chat(max_tokens=100)}), {})
    bound = bound_from_proto(PriceBound(input_token="0.01", request="1", storage_token="0.00000001"))
    candidate = Candidate("openai", "gpt-4o", "gpt-4o")
    tokens = len(request.body) + WRAPPING_TOKENS_MAX + 100

    kept = worst_case_pico(Demand(request), candidate, bound, payload_retained=True, credit_pays=False)
    assert kept == tokens * 10_000 + ROUNDING_PICO
    assert worst_case_pico(Demand(request), candidate, bound, payload_retained=False, credit_pays=False) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.decimals(0, 1, places=12))
def test_what_an_ended_call_names_for_its_storage_is_enough(
    input_tokens: int, output_tokens: int, price: Decimal
) -> None:
    bound = bound_from_proto(PriceBound(storage_token=f"{price:f}"))

    named = storage_pico(Usage(input_tokens=input_tokens, output_tokens=output_tokens), bound)

    assert named >= (input_tokens + output_tokens) * price * 10**12
    assert (named == 0) == ((input_tokens + output_tokens) * price == 0)


def test_a_price_of_eighteen_decimals_is_exact() -> None:
    assert bound_from_proto(PriceBound(input_token="0.000000000000000001")).input_token == 1
