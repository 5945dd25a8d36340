"""A stream passes through byte for byte, wherever it is split; only what was not asked for is missing."""

from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.formats.chat_completions import ChatStreamReader
from services.router.formats.event_stream import EventStream, EventTooLongError
from services.router.formats.usage import usage_from_openai

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
DONE = b"data: [DONE]\n\n"


def event(body: object, end: bytes = b"\n\n") -> bytes:
    return b"data: " + orjson.dumps(body) + end


def token(text: str, finish_reason: str | None = None) -> bytes:
    delta = {"content": text}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], "usage": None})


OPENING = b": keep-alive\n\n" + token("Gr\u00fc\u00dfe ") + token('"usage": {"prompt_tokens": 1} [DONE] \U0001f680')
FINISH = token("", "stop")
USAGE_EVENT = event({"choices": [], "usage": USAGE, "service_tier": "flex"})
STREAM = OPENING + FINISH + USAGE_EVENT + DONE


def read_along(chunks: Sequence[bytes], *, hides_usage: bool = True) -> tuple[bytes, EventStream]:
    """What the client gets before the end marker is let go, and the reader."""
    stream = EventStream(ChatStreamReader(hides_usage=hides_usage))
    passed = b"".join(stream.feed(chunk) for chunk in chunks)
    return passed + stream.end(), stream


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=30)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(splits(STREAM))
def test_wherever_a_stream_is_split_usage_and_bytes_are_the_same(chunks: list[bytes]) -> None:
    passed, stream = read_along(chunks)

    assert passed == OPENING + FINISH
    assert stream.held == DONE
    assert stream.usage == usage_from_openai(USAGE)
    assert stream.service_tier == "flex"
    assert stream.is_complete


@given(splits(STREAM))
def test_a_client_that_asked_for_usage_gets_every_byte(chunks: list[bytes]) -> None:
    passed, stream = read_along(chunks, hides_usage=False)

    assert passed + stream.held == STREAM
    assert stream.usage == usage_from_openai(USAGE)


@given(splits(STREAM.replace(b"\n", b"\r\n")))
def test_lines_may_end_as_windows_ends_them(chunks: list[bytes]) -> None:
    passed, stream = read_along(chunks)

    assert passed + stream.held == STREAM.replace(USAGE_EVENT, b"").replace(b"\n", b"\r\n")
    assert stream.usage == usage_from_openai(USAGE)


@given(st.binary(max_size=300).flatmap(splits))
def test_bytes_that_are_no_events_at_all_pass_through_as_they_came(chunks: list[bytes]) -> None:
    passed, stream = read_along(chunks)

    assert passed + stream.held == b"".join(chunks)


@given(splits(STREAM))
def test_the_text_of_the_answer_can_be_counted_afterwards(chunks: list[bytes]) -> None:
    _, stream = read_along(chunks)

    assert stream.output_text == 'Gr\u00fc\u00dfe "usage": {"prompt_tokens": 1} [DONE] \U0001f680'


def test_a_long_stream_is_kept_as_its_text_only() -> None:
    tokens = [token(f"word-{number} ") for number in range(5000)]

    _, stream = read_along([*tokens, FINISH, DONE])

    assert stream.output_text == "".join(f"word-{number} " for number in range(5000))
    assert stream.is_complete


def test_usage_in_a_chunk_that_says_something_else_too_is_read_and_passed_on() -> None:
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE})

    passed, stream = read_along([OPENING, last, DONE])

    assert passed == OPENING + last
    assert stream.usage == usage_from_openai(USAGE)


def test_a_chunk_whose_error_is_null_is_passed_on_and_fails_nothing() -> None:
    harmless = event({"choices": [], "error": None, "usage": None})

    passed, stream = read_along([harmless, FINISH, DONE])

    assert passed == harmless + FINISH
    assert not stream.failed
    assert stream.is_complete


def test_an_error_where_the_answer_should_go_on_is_passed_on_and_noted() -> None:
    broken = event({"error": {"message": "overloaded"}})

    passed, stream = read_along([OPENING, broken])

    assert passed == OPENING + broken
    assert stream.failed


def test_the_end_marker_is_held_until_it_is_let_go() -> None:
    stream = EventStream(ChatStreamReader(hides_usage=True))

    assert stream.feed(FINISH + DONE) == FINISH
    assert stream.held == DONE


def test_an_end_marker_without_its_blank_line_is_one_too() -> None:
    passed, stream = read_along([FINISH, b"data: [DONE]"])

    assert (passed, stream.held) == (FINISH, b"data: [DONE]")
    assert stream.is_complete


@pytest.mark.parametrize(
    ("stream_bytes", "complete"),
    [
        pytest.param(OPENING, False, id="breaks off"),
        pytest.param(OPENING + FINISH, True, id="a finish reason and no end marker"),
        pytest.param(OPENING + event({"error": {"message": "overloaded"}}), False, id="error event"),
        pytest.param(OPENING + event({"error": {"message": "overloaded"}}) + DONE, False, id="error event and marker"),
    ],
)
def test_a_stream_that_ends_without_an_end_is_not_complete(stream_bytes: bytes, complete: bool) -> None:
    _, stream = read_along([stream_bytes])

    assert stream.is_complete is complete


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    stream = EventStream(ChatStreamReader(hides_usage=True))

    with pytest.raises(EventTooLongError):
        for _ in range(40):
            stream.feed(b"x" * 512 * 1024)
