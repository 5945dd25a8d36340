"""A chat completion says the same in Gemini's words."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from development.simulator import gemini_format
from services.common.errors import InvalidRequestError
from services.router.formats.chat_on_gemini import ChatOnGemini
from services.router.formats.endpoint import ModelRequest
from services.router.formats.exchange import AnswerStream, Target
from services.router.formats.registry import CHAT_COMPLETIONS
from services.router.formats.usage import usage_from_gemini
from services.router.translation.to_gemini import content_request
from tests.unit.router.translation_cases import PIXEL_URL, SCHEMA, TOOL_TURNS, WEATHER, asking, requests, saying, splits

CREATED = 1_795_000_000
_PARTS = {"text", "inlineData", "fileData", "functionCall", "functionResponse"}


def translated(
    members: dict[str, Any], output_tokens_max: int | None = None, *, thinks_by_budget: bool = False
) -> dict[str, Any]:
    return content_request(members, output_tokens_max, thinks_by_budget=thinks_by_budget)


def request_for(**members: Any) -> ModelRequest:
    return CHAT_COMPLETIONS.read(orjson.dumps(asking(**members)), {})


def test_a_plain_question_is_one_content() -> None:
    assert translated(asking("Hi")) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_the_model_and_the_kind_of_answer_are_in_the_path() -> None:
    target = Target(upstream_model="tuned/flash")

    assert ChatOnGemini().call(request_for(), target).path == "/models/tuned%2Fflash:generateContent"
    assert (
        ChatOnGemini().call(request_for(stream=True), target).path
        == "/models/tuned%2Fflash:streamGenerateContent?alt=sse"
    )


def test_instructions_are_apart_and_results_name_their_tools() -> None:
    said = translated(saying({"role": "system", "content": "Be brief."}, *TOOL_TURNS, tools=[WEATHER]))

    assert said["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [content["role"] for content in said["contents"]] == ["user", "model", "user"]
    assert said["contents"][1]["parts"] == [
        {"functionCall": {"name": "weather", "args": {"city": "Ulm"}}},
        {"functionCall": {"name": "weather", "args": {}}},
    ]
    assert said["contents"][2]["parts"] == [
        {"functionResponse": {"name": "weather", "response": {"degrees": 21}}},
        {"functionResponse": {"name": "weather", "response": {"result": "rain"}}},
        {"text": "Thanks. And tomorrow?"},
    ]
    assert said["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "weather",
                    "description": "The weather in a city.",
                    "parametersJsonSchema": WEATHER["function"]["parameters"],
                }
            ]
        }
    ]


def test_a_signed_thought_comes_back_with_its_call() -> None:
    call = {**TOOL_TURNS[1]["tool_calls"][0], "extra_content": {"google": {"thought_signature": "c2lnbmVk"}}}
    said = translated(saying(TOOL_TURNS[0], {"role": "assistant", "tool_calls": [call]}))

    assert said["contents"][1]["parts"][0]["thoughtSignature"] == "c2lnbmVk"


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        pytest.param("auto", {"mode": "AUTO"}, id="auto"),
        pytest.param("none", {"mode": "NONE"}, id="none"),
        pytest.param("required", {"mode": "ANY"}, id="any"),
        pytest.param(
            {"type": "function", "function": {"name": "weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
            id="one",
        ),
    ],
)
def test_whether_a_tool_must_be_called_is_said_in_its_words(choice: object, calling: dict[str, Any]) -> None:
    said = translated(asking(tools=[WEATHER], tool_choice=choice))

    assert said["toolConfig"] == {"functionCallingConfig": calling}


def test_images_sounds_and_files_go_along() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": PIXEL_URL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.webp?size=1"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}},
    ]

    assert translated(saying({"role": "user", "content": parts}))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"fileData": {"fileUri": "https://example.com/cat.webp?size=1", "mimeType": "image/webp"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
    ]


def test_how_to_generate_is_said_in_its_names() -> None:
    said = translated(
        asking(
            temperature=1.5,
            top_p=0.5,
            max_tokens=100,
            stop="END",
            n=2,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}},
        ),
        50,
    )

    assert said["generationConfig"] == {
        "temperature": 1.5,
        "topP": 0.5,
        "maxOutputTokens": 50,
        "stopSequences": ["END"],
        "candidateCount": 2,
        "seed": 7,
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }


@pytest.mark.parametrize(
    ("effort", "by_budget", "thinking"),
    [
        ("none", True, {"thinkingBudget": 0}),
        ("low", True, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("high", True, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("none", False, {"thinkingLevel": "MINIMAL"}),
        ("low", False, {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("xhigh", False, {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_an_effort_is_a_level_or_a_budget(effort: str, by_budget: bool, thinking: dict[str, Any]) -> None:
    said = translated(asking(reasoning_effort=effort), thinks_by_budget=by_budget)

    assert said["generationConfig"]["thinkingConfig"] == thinking


@pytest.mark.parametrize(
    ("members", "field"),
    [
        pytest.param(asking(logprobs=True), "logprobs", id="probabilities"),
        pytest.param(asking(modalities=["audio"]), "modalities", id="speech"),
        pytest.param(
            saying({"role": "tool", "tool_call_id": "x", "content": ""}), "messages", id="a result of nothing"
        ),
        pytest.param(
            saying({"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "ogg"}}]}),
            "messages",
            id="an unknown sound",
        ),
        pytest.param(
            saying({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}),
            "messages",
            id="a file there",
        ),
        pytest.param(
            saying({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://["}}]}),
            "messages",
            id="an image nowhere",
        ),
    ],
)
def test_what_cannot_be_said_is_named(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translated(members)

    assert raised.value.metadata["field"] == field


@given(requests(), st.one_of(st.none(), st.integers(1, 64_000)), st.booleans())
def test_whatever_is_asked_the_turns_alternate_and_the_provider_takes_it(
    members: dict[str, Any],
    output_tokens_max: int | None,
    thinks_by_budget: bool,
) -> None:
    request = translated(members, output_tokens_max, thinks_by_budget=thinks_by_budget)

    gemini_format.asked(request, "", "flash", streamed=False)
    roles = [content["role"] for content in request["contents"]]
    assert roles == [("user", "model")[index % 2] for index in range(len(roles))]
    assert all(len(_PARTS & part.keys()) == 1 for content in request["contents"] for part in content["parts"])
    assert None not in request.get("generationConfig", {}).values()


def whole_and_streamed(prompt: str) -> tuple[dict[str, Any], bytes]:
    """What the simulated provider answers to the same prompt, both ways."""
    asked = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
    behaviour = gemini_format.asked(asked, "", "flash", streamed=True)
    events = [*gemini_format.tokens(behaviour), gemini_format.closing(behaviour)]
    return orjson.loads(gemini_format.whole(behaviour)), b"".join(events)


def read_along(chunks: Sequence[bytes], *, usage_wanted: bool = False) -> tuple[list[dict[str, Any]], AnswerStream]:
    """The chunks a client gets, and the stream."""
    request = request_for(stream=True, stream_options={"include_usage": usage_wanted})
    stream = ChatOnGemini().open_stream(request, CREATED)
    passed = b"".join(map(stream.feed, chunks)) + stream.end()
    events = [event.removeprefix(b"data: ") for event in (passed + stream.held).split(b"\n\n") if event]
    return [orjson.loads(event) for event in events if event != b"[DONE]"], stream


def test_generated_content_becomes_a_chat_completion() -> None:
    response, _ = whole_and_streamed(
        "Hi simulate:tool=weather simulate:reasoning=2 simulate:prompt=9 simulate:searches=2"
    )
    answer = ChatOnGemini().answer(request_for(), orjson.dumps(response), CREATED)

    assert answer is not None and answer.usage is not None
    completion = ChatCompletion.model_validate_json(answer.body, strict=True)
    said = orjson.loads(answer.body)["choices"][0]["message"]
    assert (completion.id, completion.model, completion.created) == ("simulated", "flash", CREATED)
    assert completion.choices[0].finish_reason == "tool_calls"
    assert said["reasoning_content"] == "thought-1 thought-2"
    assert said["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2lnbmVk"}}
    assert said["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Ulm"}'}
    # Thoughts are counted beside the output there, and inside it here.
    assert (answer.usage.usage.output_tokens, answer.usage.usage.reasoning_tokens) == (10, 2)
    assert answer.usage.usage.web_searches == 2


def test_several_searches_for_one_prompt_are_one_with_gemini_2_5() -> None:
    response, streamed = whole_and_streamed("Hi simulate:searches=3")
    renamed = orjson.dumps({**response, "modelVersion": "gemini-2.5-flash"})
    answer = ChatOnGemini().answer(request_for(), renamed, CREATED)
    _, stream = read_along([streamed.replace(b'"modelVersion":"flash"', b'"modelVersion":"gemini-2.5-flash"')])

    assert answer is not None and answer.usage is not None and stream.usage is not None
    assert (answer.usage.usage.web_searches, stream.usage.usage.web_searches) == (1, 1)


@pytest.mark.parametrize(
    ("reason", "finish_reason"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("NEW", "stop")],
)
def test_why_it_stopped_is_said_in_openai_s_words(reason: str, finish_reason: str) -> None:
    response, streamed = whole_and_streamed(f"Hi simulate:finish={reason}")
    answer = ChatOnGemini().answer(request_for(), orjson.dumps(response), CREATED)
    chunks, _ = read_along([streamed])

    assert answer is not None
    assert orjson.loads(answer.body)["choices"][0]["finish_reason"] == finish_reason
    assert chunks[-1]["choices"][0]["finish_reason"] == finish_reason


def test_a_prompt_that_the_filter_refuses_is_an_answer_that_says_so() -> None:
    response, streamed = whole_and_streamed("Hi simulate:finish=BLOCKED")
    answer = ChatOnGemini().answer(request_for(), orjson.dumps(response), CREATED)
    chunks, stream = read_along([streamed])

    assert answer is not None and answer.rejected
    assert orjson.loads(answer.body)["choices"][0]["finish_reason"] == "content_filter"
    assert stream.rejected and stream.is_complete
    assert chunks[1]["choices"][0]["finish_reason"] == "content_filter"


def test_an_image_in_the_answer_is_a_data_url() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    response = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
    answer = ChatOnGemini().answer(request_for(), orjson.dumps(response), CREATED)

    assert answer is not None
    (image,) = orjson.loads(answer.body)["choices"][0]["message"]["images"]
    assert image == {"type": "image_url", "image_url": {"url": PIXEL_URL}}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"candidates": 7}', b'{"error": {"code": 500}}'])
def test_what_is_no_content_is_no_answer(body: bytes) -> None:
    assert ChatOnGemini().answer(request_for(), body, CREATED) is None


PROMPT = "Hi simulate:reasoning=2 simulate:prompt=50 simulate:cached=9 simulate:searches=1 simulate:text=emoji"
WHOLE, STREAMED = whole_and_streamed(PROMPT)


@given(splits(STREAMED))
def test_wherever_a_stream_is_split_it_says_what_the_whole_answer_says(chunks: list[bytes]) -> None:
    events, stream = read_along(chunks, usage_wanted=True)
    answer = ChatOnGemini().answer(request_for(), orjson.dumps(WHOLE), CREATED)
    assert answer is not None
    message = orjson.loads(answer.body)["choices"][0]["message"]

    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    for member in ("reasoning_content", "content"):
        assert "".join(delta.get(member, "") for delta in deltas) == message[member]
    for event in events:
        ChatCompletionChunk.model_validate(event)
    assert stream.usage == answer.usage == usage_from_gemini(WHOLE["usageMetadata"], 1)
    assert events[-1]["usage"] == orjson.loads(answer.body)["usage"]
    assert stream.is_complete and stream.held.endswith(b"data: [DONE]\n\n")


def test_several_calls_of_tools_are_numbered_and_have_ids_of_their_own() -> None:
    part = {"functionCall": {"name": "weather", "args": {}}}
    response = {"candidates": [{"content": {"parts": [part, part]}, "finishReason": "STOP"}], "responseId": "r"}
    events, _ = read_along([b"data: " + orjson.dumps(response) + b"\n\n"])

    calls = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"]) for call in calls] == [(0, "call_r_0_0"), (1, "call_r_0_1")]


def test_a_stream_that_ends_without_an_end_is_not_complete_and_knows_its_input_all_the_same() -> None:
    _, stream = read_along([STREAMED[: STREAMED.rfind(b"data:")]])

    assert not stream.is_complete
    assert (stream.usage, stream.held) == (None, b"")
    assert (stream.counted.input_tokens, stream.counted.output_tokens) == (50, 0)


def test_an_error_in_mid_stream_comes_in_the_provider_s_words() -> None:
    error = gemini_format.error_event(503, "unavailable", "The model is overloaded.")
    events, stream = read_along([STREAMED[: STREAMED.rfind(b"data:")], error])

    assert events[-1]["error"]["message"] == "The model is overloaded."
    assert stream.failed and not stream.is_complete


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_parts = st.dictionaries(st.sampled_from(["text", "thought", "functionCall", "inlineData"]), _json, max_size=2)
_candidates = st.fixed_dictionaries(
    {},
    optional={
        "content": st.one_of(_json, st.fixed_dictionaries({"parts": st.lists(_parts, max_size=3)})),
        "finishReason": _json,
        "index": _json,
        "groundingMetadata": _json,
    },
)
_responses = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.one_of(_json, st.lists(_candidates, max_size=2)),
        "usageMetadata": _json,
        "promptFeedback": _json,
        "responseId": _json,
        "error": _json,
    },
)


@given(st.lists(_responses, max_size=4))
def test_whatever_a_provider_sends_nothing_breaks(responses: list[dict[str, Any]]) -> None:
    for response in responses:
        ChatOnGemini().answer(request_for(), orjson.dumps(response), CREATED)
    _, stream = read_along([b"data: " + orjson.dumps(response) + b"\n\n" for response in responses])

    assert isinstance(stream.output_text, str)
