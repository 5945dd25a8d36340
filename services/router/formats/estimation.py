"""Counts tokens where the provider did not say. The tokenizers are compiled into a library; nothing is downloaded."""

from functools import cache
from typing import Protocol

from rs_bpe.bpe import openai

_OLDER_MODELS = ("gpt-3.5", "gpt-4-", "text-embedding")


class Tokenizer(Protocol):
    """Splits text into tokens."""

    def count(self, text: str) -> int:
        """How many tokens the text has."""


def tokenizer_for(model: str) -> Tokenizer:
    """The model's own tokenizer where it is known, else the nearest. The first use takes half a second."""
    is_older = model == "gpt-4" or model.startswith(_OLDER_MODELS)
    return _cl100k() if is_older else _o200k()


@cache
def _o200k() -> Tokenizer:
    tokenizer: Tokenizer = openai.o200k_base()
    return tokenizer


@cache
def _cl100k() -> Tokenizer:
    tokenizer: Tokenizer = openai.cl100k_base()
    return tokenizer
