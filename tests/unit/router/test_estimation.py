"""Tokens that nobody reported are counted with a real tokenizer."""

from typing import Any

import orjson

from services.router.calls.completion import estimated_usage
from services.router.formats.chat_completions import text_of_message
from services.router.formats.endpoint import Answer
from services.router.formats.estimation import tokenizer_for
from services.router.formats.registry import CHAT_COMPLETIONS
from services.router.routing.routing import Candidate
from tollgate.ledger.v1.usage_pb2 import Usage

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello, world! Gr\u00fc\u00dfe"}]}


def estimate_chat_usage(model: str, request: dict[str, Any], output_text: str, output_tokens_max: int | None) -> Usage:
    asked = CHAT_COMPLETIONS.read(orjson.dumps({"model": model, **request}), {})
    said = Answer(body=b"", usage=None, text=lambda: output_text)
    return estimated_usage(asked, Candidate("openai", model, model, output_tokens_max), said)


def test_text_is_counted_as_the_model_s_own_tokenizer_counts_it() -> None:
    # As OpenAI's tokenizer page shows them.
    assert tokenizer_for("gpt-4o").count("Hello, world!") == 4
    assert tokenizer_for("gpt-4").count("\u4f60\u597d") == 2
    assert tokenizer_for("gpt-4o").count("\u4f60\u597d") == 1


def test_an_estimate_counts_prompt_and_answer() -> None:
    usage = estimate_chat_usage("gpt-4o", HELLO, "one two three", None)

    assert (usage.input_tokens, usage.output_tokens) == (5 + 3 + 3, 3)


def test_an_estimated_answer_is_never_above_the_model_s_maximum() -> None:
    assert estimate_chat_usage("gpt-4o", HELLO, "word " * 500, 100).output_tokens == 100


def test_parts_and_tool_calls_are_text_too() -> None:
    message = {
        "content": [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": "data:"}}],
        "tool_calls": [{"function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}],
    }

    assert text_of_message(message) == 'Look: weather{"city":"Ulm"}'


def test_whatever_a_message_is_it_can_be_counted() -> None:
    odd: dict[str, Any] = {
        "messages": [None, 7, {"content": 5}, {"content": [None, {"text": 3}]}, {"tool_calls": [7, {}]}]
    }

    assert estimate_chat_usage("gpt-4o", odd, "", None).input_tokens == 5 * 3 + 3
