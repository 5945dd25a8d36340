"""The simulated provider answers by rule, so that tests and demonstrations can say what a call uses."""

import orjson
import pytest

from development.simulator import anthropic_format, openai_format
from development.simulator.behaviour import BadRequestError, Behaviour, behaviour_for


def asked(prompt: str, instance: str = "", **members: object) -> Behaviour:
    return behaviour_for({"model": "m", "messages": [{"role": "user", "content": prompt}], **members}, instance)


def test_every_word_of_the_prompt_is_a_token_and_the_answer_has_eight() -> None:
    usage = openai_format.usage(asked("What does a toll gate do?"))

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 8)


def test_directives_are_words_of_the_prompt() -> None:
    usage = openai_format.usage(asked("Hi simulate:tokens=20 simulate:prompt=1000 simulate:cached=600"))

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1000, 20)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 600


def test_a_directive_for_one_instance_means_nothing_to_another() -> None:
    assert asked("simulate:status=503@west", "west").number("status") == 503
    assert asked("simulate:status=503@west", "east").number("status") == 0


def test_the_same_request_gets_the_same_bytes() -> None:
    assert openai_format.whole(asked("Hi")) == openai_format.whole(asked("Hi"))


def test_a_stream_says_what_the_whole_answer_says() -> None:
    behaviour = asked("Hi simulate:tokens=3")
    events = [orjson.loads(event.removeprefix(b"data: ")) for event in openai_format.tokens(behaviour)]

    streamed = "".join(event["choices"][0]["delta"]["content"] for event in events)
    assert streamed == orjson.loads(openai_format.whole(behaviour))["choices"][0]["message"]["content"]


def test_anthropic_counts_the_cache_apart_from_the_input() -> None:
    body = orjson.loads(anthropic_format.whole(asked("simulate:prompt=100 simulate:cached=60 simulate:cache_write=10")))

    assert body["usage"] == {
        "input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "output_tokens": 8,
    }


@pytest.mark.parametrize("request_body", [{}, {"model": "m"}, {"model": 7, "messages": [1]}, {"messages": []}])
def test_a_request_without_model_or_messages_is_bad(request_body: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        behaviour_for(request_body, "")
