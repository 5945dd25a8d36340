"""A chat completion says the same in Anthropic's words. What their SDK takes for a request is the judge of ours."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from development.simulator import anthropic_format
from services.common.errors import InvalidRequestError
from services.router.credit.worst_case import SEARCHES_MAX
from services.router.formats.chat_on_anthropic import ChatOnAnthropic
from services.router.formats.endpoint import ModelRequest
from services.router.formats.exchange import AnswerStream
from services.router.formats.registry import CHAT_COMPLETIONS
from services.router.formats.usage import usage_from_anthropic
from services.router.translation.to_anthropic import message_request
from tests.unit.router.translation_cases import PIXEL_URL, SCHEMA, TOOL_TURNS, WEATHER, asking, requests, saying, splits

JUDGE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
CREATED = 1_795_000_000


def translated(
    members: dict[str, Any], output_tokens_max: int | None = None, *, thinks_by_budget: bool = False
) -> dict[str, Any]:
    return message_request(members, "claude", output_tokens_max, thinks_by_budget=thinks_by_budget)


def request_for(**members: Any) -> ModelRequest:
    return CHAT_COMPLETIONS.read(orjson.dumps(asking(**members)), {})


def as_the_sdk_reads_it(request: dict[str, Any]) -> dict[str, Any]:
    """What is left of a request when everything the SDK does not know is dropped."""
    read: dict[str, Any] = _read_to_the_end(JUDGE.validate_python(request))
    return read


def _read_to_the_end(value: Any) -> Any:
    """What it takes for any iterable it checks only while it is read."""
    if isinstance(value, dict):
        return {name: _read_to_the_end(inner) for name, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_read_to_the_end(inner) for inner in value]
    return value


def test_a_plain_question_needs_a_model_a_limit_and_a_turn() -> None:
    assert translated(asking("Hi")) == {
        "model": "claude",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


def test_instructions_leave_the_turns_wherever_they_stood() -> None:
    said = translated(
        saying(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "In verse.", "cache_control": {"type": "ephemeral"}}],
            },
        )
    )

    assert said["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "In verse.", "cache_control": {"type": "ephemeral"}},
    ]
    assert [turn["role"] for turn in said["messages"]] == ["user"]


def test_it_searches_no_more_than_is_reserved_for() -> None:
    (tool,) = translated(asking(web_search_options={}))["tools"]

    assert tool == {"type": "web_search_20250305", "name": "web_search", "max_uses": SEARCHES_MAX}


def test_results_of_tools_and_what_the_user_adds_are_one_turn() -> None:
    said = translated(saying(*TOOL_TURNS, tools=[WEATHER]))

    assert [turn["role"] for turn in said["messages"]] == ["user", "assistant", "user"]
    assert said["messages"][1]["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
    ]
    assert said["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": '{"degrees": 21}'}]},
        {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "rain"}]},
        {"type": "text", "text": "Thanks. And tomorrow?"},
    ]
    assert said["tools"] == [
        {
            "name": "weather",
            "description": "The weather in a city.",
            "input_schema": WEATHER["function"]["parameters"],
            "strict": True,
        }
    ]


@pytest.mark.parametrize(
    ("members", "choice"),
    [
        pytest.param({}, None, id="nothing said"),
        pytest.param({"tool_choice": "auto"}, {"type": "auto"}, id="auto"),
        pytest.param({"tool_choice": "none"}, {"type": "none"}, id="none"),
        pytest.param({"tool_choice": "required"}, {"type": "any"}, id="any"),
        pytest.param(
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"type": "tool", "name": "weather"},
            id="one",
        ),
        pytest.param(
            {"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}, id="one at a time"
        ),
    ],
)
def test_whether_a_tool_must_be_called_is_said_in_its_words(
    members: dict[str, Any], choice: dict[str, Any] | None
) -> None:
    assert translated(asking(tools=[WEATHER], **members)).get("tool_choice") == choice


def test_an_image_goes_along_as_data_or_as_its_address() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL_URL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}},
    ]

    assert translated(saying({"role": "user", "content": parts}))["messages"][0]["content"][1:] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}},
    ]


def test_a_schema_for_the_answer_is_a_format_of_the_output() -> None:
    said = translated(asking(response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}))

    assert said["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    assert "JSON object" in translated(asking(response_format={"type": "json_object"}))["system"][0]["text"]


@pytest.mark.parametrize(
    ("members", "output_tokens_max", "expected"),
    [
        pytest.param({}, None, 8192, id="nobody says"),
        pytest.param({}, 64_000, 64_000, id="as configured"),
        pytest.param({"max_tokens": 5}, 64_000, 5, id="the old name"),
        pytest.param({"max_completion_tokens": 7, "max_tokens": 5}, None, 7, id="the new name first"),
        pytest.param({"max_completion_tokens": 100_000}, 64_000, 64_000, id="never above the model's"),
    ],
)
def test_the_answer_may_be_as_long_as_asked_and_as_the_model_can(
    members: dict[str, Any], output_tokens_max: int | None, expected: int
) -> None:
    assert translated(asking(**members), output_tokens_max)["max_tokens"] == expected


def test_an_effort_is_an_effort_or_a_budget_below_the_limit() -> None:
    by_effort = translated(asking(reasoning_effort="medium", temperature=0.3))
    by_budget = translated(asking(reasoning_effort="medium", max_completion_tokens=3000), thinks_by_budget=True)
    no_room = translated(asking(reasoning_effort="medium", max_completion_tokens=1000), thinks_by_budget=True)

    assert (by_effort["thinking"], by_effort["output_config"]) == ({"type": "adaptive"}, {"effort": "medium"})
    assert "temperature" not in by_effort
    assert by_budget["thinking"] == {"type": "enabled", "budget_tokens": 2999}
    assert "thinking" not in no_room


def test_thoughts_come_back_signed_as_they_were_given() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "signed"}
    turns = [TOOL_TURNS[0], {**TOOL_TURNS[1], "thinking_blocks": [thought]}, *TOOL_TURNS[2:4]]
    kept = translated(saying(*turns, reasoning_effort="low", tools=[WEATHER]), 9000, thinks_by_budget=True)
    lost = translated(saying(*TOOL_TURNS[:4], reasoning_effort="low", tools=[WEATHER]), 9000, thinks_by_budget=True)

    assert kept["messages"][1]["content"][0] == thought
    assert kept["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert "thinking" not in lost


def test_sampling_is_brought_into_range() -> None:
    members = asking(temperature=1.7, top_p=0.5, stop=["END", " ", "."], user="u-1", service_tier="default")
    said = translated(members, thinks_by_budget=True)

    assert (said["temperature"], said["stop_sequences"]) == (1, ["END", "."])
    assert "top_p" not in said
    assert (said["metadata"], said["service_tier"]) == ({"user_id": "u-1"}, "standard_only")


def test_newer_models_are_not_told_how_to_choose_words_nor_a_budget_and_may_be_kept_from_thinking() -> None:
    said = translated(asking(temperature=0.2, top_p=0.5, reasoning_effort="none"))

    assert not {"temperature", "top_p"} & said.keys()
    assert said["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        pytest.param(asking(n=2), "n", id="several answers"),
        pytest.param(asking(logprobs=True), "logprobs", id="probabilities"),
        pytest.param(asking(modalities=["text", "audio"]), "modalities", id="speech"),
        pytest.param(asking(temperature="hot"), "temperature", id="a text for a number"),
        pytest.param(asking(stop=7), "stop", id="a number for a text"),
        pytest.param(asking(max_tokens=-1), "max_tokens", id="a negative limit"),
        pytest.param(asking(tools=[{"type": "custom"}]), "tools", id="a tool of another kind"),
        pytest.param(asking(tools=[WEATHER], tool_choice="maybe"), "tool_choice", id="an unknown choice"),
        pytest.param(asking(functions=[{}]), "functions", id="functions of old"),
        pytest.param(asking(response_format={"type": "xml"}), "response_format", id="an unknown answer"),
        pytest.param(asking(reasoning_effort="heroic"), "reasoning_effort", id="an unknown effort"),
        pytest.param(saying({"role": "critic", "content": "Hm"}), "messages", id="an unknown role"),
        pytest.param(
            saying({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}), "messages", id="a sound"
        ),
        pytest.param(saying({"role": "user", "content": [{"type": "image_url"}]}), "messages", id="no image"),
        pytest.param(
            saying({"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}),
            "messages",
            id="half a JSON",
        ),
    ],
)
def test_what_cannot_be_said_is_named(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translated(members)

    assert raised.value.metadata["field"] == field


@given(requests(), st.one_of(st.none(), st.integers(1, 64_000)), st.booleans())
def test_whatever_is_asked_the_sdk_finds_nothing_unknown_in_it(
    members: dict[str, Any],
    output_tokens_max: int | None,
    thinks_by_budget: bool,
) -> None:
    request = translated(members, output_tokens_max, thinks_by_budget=thinks_by_budget)

    # Of older models, which the SDK has forgotten.
    of_old = {name: request[name] for name in ("temperature", "top_p") if thinks_by_budget and name in request}
    assert as_the_sdk_reads_it(request) | of_old == request
    roles = [turn["role"] for turn in request["messages"]]
    assert all(one != other for one, other in pairwise(roles))
    thinking = request.get("thinking", {})
    assert 1024 <= thinking.get("budget_tokens", 1024) < max(request["max_tokens"], 1025)


def whole_and_streamed(prompt: str, **members: Any) -> tuple[dict[str, Any], bytes]:
    """What the simulated provider answers to the same prompt, both ways."""
    asked = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}], **members}
    behaviour = anthropic_format.asked(asked, "")
    events = [
        anthropic_format.opening(behaviour),
        *anthropic_format.tokens(behaviour),
        anthropic_format.closing(behaviour),
    ]
    return orjson.loads(anthropic_format.whole(behaviour)), b"".join(events)


def read_along(chunks: Sequence[bytes], *, usage_wanted: bool = False) -> tuple[list[dict[str, Any]], AnswerStream]:
    """The chunks a client gets, and the stream."""
    request = request_for(stream=True, stream_options={"include_usage": usage_wanted})
    stream = ChatOnAnthropic().open_stream(request, CREATED)
    passed = b"".join(map(stream.feed, chunks)) + stream.end()
    events = [event.removeprefix(b"data: ") for event in (passed + stream.held).split(b"\n\n") if event]
    return [orjson.loads(event) for event in events if event != b"[DONE]"], stream


def test_a_message_becomes_a_chat_completion() -> None:
    message, _ = whole_and_streamed("Hi simulate:tool=weather simulate:reasoning=2 simulate:cached=1 simulate:prompt=9")
    answer = ChatOnAnthropic().answer(request_for(), orjson.dumps(message), CREATED)

    assert answer is not None and answer.usage is not None
    completion = ChatCompletion.model_validate_json(answer.body, strict=True)
    said = orjson.loads(answer.body)["choices"][0]["message"]
    assert (completion.id, completion.model, completion.created) == ("msg_simulated", "claude", CREATED)
    assert completion.choices[0].finish_reason == "tool_calls"
    assert said["content"] is None
    assert said["reasoning_content"] == "thought-1 thought-2"
    assert said["thinking_blocks"][0]["signature"] == "signed"
    assert said["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Ulm"}'}
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, answer.usage.usage.cached_input_tokens) == (9, 1)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("new", "stop"),
    ],
)
def test_why_it_stopped_is_said_in_openai_s_words(stop_reason: str, finish_reason: str) -> None:
    message, streamed = whole_and_streamed(f"Hi simulate:finish={stop_reason}")
    answer = ChatOnAnthropic().answer(request_for(), orjson.dumps(message), CREATED)
    chunks, _ = read_along([streamed])

    assert answer is not None
    assert orjson.loads(answer.body)["choices"][0]["finish_reason"] == finish_reason
    assert chunks[-1]["choices"][0]["finish_reason"] == finish_reason


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"content": "text"}', b'{"type": "error", "error": {}}'])
def test_what_is_no_message_is_no_answer(body: bytes) -> None:
    assert ChatOnAnthropic().answer(request_for(), body, CREATED) is None


PROMPT = "Hi simulate:tool=weather simulate:reasoning=2 simulate:prompt=50 simulate:cache_write=9 simulate:searches=1"
WHOLE, STREAMED = whole_and_streamed(PROMPT)


@given(splits(STREAMED))
def test_wherever_a_stream_is_split_it_says_what_the_whole_answer_says(chunks: list[bytes]) -> None:
    events, stream = read_along(chunks, usage_wanted=True)
    answer = ChatOnAnthropic().answer(request_for(), orjson.dumps(WHOLE), CREATED)
    assert answer is not None
    message = orjson.loads(answer.body)["choices"][0]["message"]

    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning_content"]
    assert [block for delta in deltas for block in delta.get("thinking_blocks", ())] == message["thinking_blocks"]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call.get("id")) for call in calls] == [(0, "toolu_simulated"), (0, None), (0, None)]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city":"Ulm"}'
    for event in events:
        ChatCompletionChunk.model_validate(event)
    assert stream.usage == answer.usage == usage_from_anthropic(WHOLE["usage"])
    assert events[-1]["usage"] == orjson.loads(answer.body)["usage"]
    assert stream.is_complete and stream.held.endswith(b"data: [DONE]\n\n")


def test_a_client_that_did_not_ask_for_usage_sees_none() -> None:
    events, stream = read_along([STREAMED])

    assert stream.held == b"data: [DONE]\n\n"
    assert all("usage" not in event and event["choices"] for event in events)


def test_a_stream_that_ends_without_an_end_is_not_complete_and_knows_its_input_all_the_same() -> None:
    _, stream = read_along([STREAMED.partition(b"event: message_delta")[0]])

    assert not stream.is_complete
    assert stream.held == b""
    assert stream.usage is None
    assert (stream.counted.input_tokens, stream.counted.cache_write_tokens) == (50, 9)
    assert stream.output_text == 'thought-1 thought-2weather{"city":"Ulm"}'


def test_an_error_in_mid_stream_comes_in_the_provider_s_words() -> None:
    error = anthropic_format.error_event(500, "overloaded_error", "Overloaded")
    events, stream = read_along([STREAMED.partition(b"event: message_delta")[0], error])

    assert events[-1]["error"] == {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}
    assert stream.failed and not stream.is_complete


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_kinds = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
)
_events = st.fixed_dictionaries(
    {"type": _kinds},
    optional={"delta": _json, "message": _json, "content_block": _json, "index": _json, "usage": _json, "error": _json},
)


@given(st.lists(_events, max_size=6))
def test_whatever_a_provider_sends_nothing_breaks(events: list[dict[str, Any]]) -> None:
    data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)

    _, stream = read_along([data])
    assert isinstance(stream.output_text, str)
