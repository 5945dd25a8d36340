"""Streams of every format pass through byte for byte, wherever they are split, and say what was used."""

from types import ModuleType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from development.simulator import anthropic_format, images_format, openai_format, responses_format
from services.router.formats.endpoint import Endpoint, ModelRequest
from services.router.formats.event_stream import EventStream
from services.router.formats.native import NativeExchange
from services.router.formats.registry import CHAT_COMPLETIONS, IMAGE_GENERATIONS, MESSAGES, RESPONSES
from services.router.formats.usage import UsageReading
from tests.unit.router.translation_cases import splits

PROMPT = "Hi simulate:prompt=50 simulate:cached=7 simulate:reasoning=2 simulate:searches=1 simulate:text=emoji"
ASKED = [{"role": "user", "content": PROMPT}]
CASES: dict[str, tuple[Endpoint, ModuleType, dict[str, Any]]] = {
    "chat completions": (
        CHAT_COMPLETIONS,
        openai_format,
        {"messages": ASKED, "stream_options": {"include_usage": True}},
    ),
    "responses": (RESPONSES, responses_format, {"input": PROMPT}),
    "messages": (MESSAGES, anthropic_format, {"messages": ASKED, "max_tokens": 9}),
    "images": (IMAGE_GENERATIONS, images_format, {"prompt": PROMPT, "n": 2, "partial_images": 2, "size": "1024x1536"}),
}
every_format = pytest.mark.parametrize("name", CASES)


def made(name: str) -> tuple[ModelRequest, list[bytes], bytes]:
    """A streamed request, the events of its answer, and the same answer whole."""
    endpoint, wire_format, members = CASES[name]
    body = {"model": "gpt-image-1", "stream": True, **members}
    behaviour = wire_format.asked(body, "")
    events = [wire_format.opening(behaviour), *wire_format.tokens(behaviour), wire_format.closing(behaviour)]
    return endpoint.read(orjson.dumps(body), {}), events, wire_format.whole(behaviour)


def whole_usage(name: str) -> UsageReading:
    request, _, whole = made(name)
    answer = NativeExchange(request.endpoint).answer(request, whole, 0)
    assert answer is not None and answer.usage is not None
    return answer.usage


def read_along(request: ModelRequest, chunks: list[bytes]) -> tuple[bytes, EventStream]:
    """What the client gets before the end is let go, and the stream."""
    stream = EventStream(request.endpoint.stream_reader(request))
    passed = b"".join(map(stream.feed, chunks))
    return passed + stream.end(), stream


@every_format
@given(data=st.data())
def test_wherever_a_stream_is_split_bytes_and_usage_are_the_same(name: str, data: st.DataObject) -> None:
    request, events, _ = made(name)
    sent = b"".join(events)
    passed, stream = read_along(request, data.draw(splits(sent)))

    assert passed + stream.held == sent
    assert stream.is_complete and stream.held
    assert stream.usage is not None
    # Several images are reported one by one, and whole with one entry.
    if name != "images":
        assert stream.usage == whole_usage(name)


@every_format
def test_a_stream_that_stops_before_its_end_is_not_complete(name: str) -> None:
    request, events, _ = made(name)
    passed, stream = read_along(request, events[:-1])

    assert passed == b"".join(events[:-1])
    assert not stream.is_complete and not stream.held


@every_format
def test_an_error_in_place_of_the_end_is_passed_on_and_noticed(name: str) -> None:
    request, events, _ = made(name)
    error = CASES[name][1].error_event(500, "simulated", "failing, as asked")
    passed, stream = read_along(request, [*events[:-1], error])

    assert passed.endswith(error)
    assert stream.failed and not stream.is_complete


@every_format
def test_our_own_error_event_is_one_in_the_eyes_of_the_format(name: str) -> None:
    request, events, _ = made(name)
    _, stream = read_along(request, [*events[:-1], request.endpoint.error_event("provider_failed", "broke off")])

    assert stream.failed


@every_format
@given(chunks=st.binary(max_size=300).flatmap(splits))
def test_bytes_that_are_no_events_at_all_pass_through_as_they_came(name: str, chunks: list[bytes]) -> None:
    request, _, _ = made(name)
    passed, stream = read_along(request, chunks)

    assert passed + stream.held == b"".join(chunks)


@pytest.mark.parametrize("name", ["chat completions", "responses", "messages"])
def test_the_text_of_the_answer_can_be_counted_afterwards(name: str) -> None:
    request, events, _ = made(name)
    _, stream = read_along(request, events[:-1])

    assert "🚀-1 🚀-2" in stream.output_text


def test_text_that_looks_like_an_end_or_a_usage_is_only_text() -> None:
    text = '{"type":"message_stop"} {"type": "response.completed"} [DONE] "usage":{"output_tokens":1} "error":{'
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    of_responses = {"type": "response.output_text.delta", "delta": text}
    for name, body in (("messages", delta), ("responses", of_responses)):
        request, _, _ = made(name)
        event = b"data: " + orjson.dumps(body) + b"\n\n"
        passed, stream = read_along(request, [event])

        assert (passed, stream.held, stream.usage, stream.failed) == (event, b"", None, False)


def test_images_of_a_stream_are_counted_as_they_are_complete() -> None:
    request, events, _ = made("images")
    _, all_there = read_along(request, events)
    closing = events[-1].split(b"\n\n")[0] + b"\n\n"
    _, one_there = read_along(request, [closing])

    assert [(each.size, each.count) for each in all_there.counted.output_images] == [("1024x1536", 1)] * 2
    assert all_there.usage is not None and all_there.usage.usage.output_image_tokens == 2 * 1056
    assert one_there.counted.output_images[0].count == 1 and not one_there.is_complete


def test_an_image_of_megabytes_is_read_in_pieces_without_being_kept() -> None:
    request, _, _ = made("images")
    image = {"type": "image_generation.partial_image", "b64_json": "A" * 8_000_000}
    data = b"data: " + orjson.dumps(image) + b"\n\n"
    passed, stream = read_along(request, [data[at : at + 65536] for at in range(0, len(data), 65536)])

    assert passed == data
    assert stream.output_text == ""


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_searches_of_a_response_are_those_the_provider_charges_for(streamed: bool) -> None:
    """Some of what looks like a search is not charged, and the provider says how many were."""
    request = RESPONSES.read(b'{"model":"m","input":"Hi"}', {})
    response = {
        "output": [{"type": "web_search_call", "action": {"type": "search"}}] * 3,
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "tool_usage": {"web_search": {"num_requests": 2}},
    }
    if streamed:
        event = b"data: " + orjson.dumps({"type": "response.completed", "response": response}) + b"\n\n"
        reading = read_along(request, [event])[1].usage
    else:
        answer = NativeExchange(RESPONSES).answer(request, orjson.dumps(response), 0)
        assert answer is not None
        reading = answer.usage

    assert reading is not None and reading.usage.web_searches == 2


def test_a_streamed_message_tells_its_fast_mode_and_its_summaries() -> None:
    request = MESSAGES.read(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}', {})
    beginning = {"usage": {"input_tokens": 5, "output_tokens": 1, "speed": "fast"}}
    summary = {"type": "compaction", "input_tokens": 100, "output_tokens": 3}
    events = [
        {"type": "message_start", "message": beginning},
        {"type": "message_delta", "usage": {"output_tokens": 7, "iterations": [summary]}},
    ]
    _, stream = read_along(request, [b"data: " + orjson.dumps(each) + b"\n\n" for each in events])

    assert stream.service_tier == "fast"
    assert stream.usage is not None
    assert (stream.usage.usage.input_tokens, stream.usage.usage.output_tokens) == (105, 10)


def test_a_message_that_breaks_off_knows_its_input_exactly() -> None:
    request, events, _ = made("messages")
    _, stream = read_along(request, events[:-1])

    assert stream.usage is None
    assert (stream.counted.input_tokens, stream.counted.cached_input_tokens, stream.counted.output_tokens) == (50, 7, 0)
