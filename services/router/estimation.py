"""Counts tokens where the provider did not say. The tokenizers are compiled into a library; nothing is downloaded."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol

from rs_bpe.bpe import openai

from tollgate.ledger.v1.usage_pb2 import Usage

# What the chat format itself adds, as OpenAI documents it: for each message, and for the beginning of the answer.
_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_ANSWER = 3
_OLDER_MODELS = ("gpt-3.5", "gpt-4-", "text-embedding")


class Tokenizer(Protocol):
    """Splits text into tokens."""

    def count(self, text: str) -> int:
        """How many tokens the text has."""


def tokenizer_for(model: str) -> Tokenizer:
    """The model's own tokenizer where it is known, else the nearest. The first use takes half a second."""
    is_older = model == "gpt-4" or model.startswith(_OLDER_MODELS)
    return _cl100k() if is_older else _o200k()


def estimate_chat_usage(
    model: str, request: Mapping[str, Any], output_text: str, output_tokens_max: int | None
) -> Usage:
    """Estimates a chat completion from its text. The output is never above the model's maximum."""
    tokenizer = tokenizer_for(model)
    messages = request.get("messages")
    messages = messages if isinstance(messages, list) else []
    input_tokens = sum(_TOKENS_PER_MESSAGE + tokenizer.count(text_of_message(each)) for each in messages)
    output_tokens = tokenizer.count(output_text)
    if output_tokens_max is not None:
        output_tokens = min(output_tokens, output_tokens_max)
    return Usage(input_tokens=input_tokens + _TOKENS_PER_ANSWER, output_tokens=output_tokens)


def text_of_message(message: object) -> str:
    """All that a message, or a streamed piece of one, says: content, refusal, reasoning, and calls of tools."""
    return "".join(_texts(message))


def _texts(message: object) -> Iterable[str]:
    if not isinstance(message, dict):
        return
    for member in ("content", "refusal", "reasoning_content", "reasoning"):
        value = message.get(member)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    tool_calls = message.get("tool_calls")
    for call in tool_calls if isinstance(tool_calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (text for text in (function.get("name"), function.get("arguments")) if isinstance(text, str))


@cache
def _o200k() -> Tokenizer:
    tokenizer: Tokenizer = openai.o200k_base()
    return tokenizer


@cache
def _cl100k() -> Tokenizer:
    tokenizer: Tokenizer = openai.cl100k_base()
    return tokenizer
