"""Chat completion requests that say something each, for both translations, and how to split streams."""

from typing import Any

from hypothesis import strategies as st

PIXEL_URL = "data:image/png;base64,iVBORw0KGgo="
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}
TOOL_TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather in Ulm and Bonn?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 21}'},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "rain"}]},
    {"role": "user", "content": "Thanks. And tomorrow?"},
]


def asking(prompt: str = "Hi", **members: Any) -> dict[str, Any]:
    """The members of a chat completion request."""
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **members}


def saying(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A request with these messages."""
    return {"model": "m", "messages": list(messages), **members}


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, split anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=30)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


_texts = st.text(max_size=12)
_user_parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, _texts),
    st.just({"type": "image_url", "image_url": {"url": PIXEL_URL, "detail": "low"}}),
    st.just({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
)
_messages = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, _texts.filter(bool)),
    st.builds(lambda parts: {"role": "user", "content": parts}, st.lists(_user_parts, min_size=1, max_size=3)),
    st.builds(lambda text: {"role": "system", "content": text}, _texts),
    st.builds(lambda text: {"role": "developer", "content": [{"type": "text", "text": text}]}, _texts),
    st.builds(lambda text: {"role": "assistant", "content": text}, _texts),
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_tokens": st.integers(1, 100_000),
        "max_completion_tokens": st.one_of(st.none(), st.integers(1, 100_000)),
        "stop": st.one_of(st.none(), _texts, st.lists(_texts, max_size=4)),
        "tools": st.just([WEATHER]),
        "tool_choice": st.sampled_from(
            ["auto", "none", "required", {"type": "function", "function": {"name": "weather"}}]
        ),
        "parallel_tool_calls": st.booleans(),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
        "response_format": st.sampled_from(
            [
                {"type": "text"},
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}},
            ]
        ),
        "seed": st.integers(0, 100),
        "user": _texts,
        "service_tier": st.sampled_from(["auto", "default", "flex"]),
        "web_search_options": st.just({}),
        "presence_penalty": st.floats(-2, 2),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Chat completion requests that OpenAI would take."""
    messages = draw(st.lists(_messages, max_size=4))
    if draw(st.booleans()):
        messages += TOOL_TURNS
    return saying({"role": "user", "content": "Begin."}, *messages, **draw(_options))
