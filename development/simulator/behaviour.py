"""What the simulated provider does with a request. Pure: the same request always gets the same answer.

Usage. Every word of a message (text between white space) is one prompt token, directives included, so that
`"Say hello"` is 2. The answer is `word-1 word-2 …`, one completion token per word, 8 unless a directive says otherwise.

Directives are words of the last message, `simulate:<name>=<value>`:

    tokens=20             length of the answer, in tokens
    prompt=1000           prompt tokens to report, whatever the text
    cached=600            prompt_tokens_details.cached_tokens; may be more than the prompt, as a broken provider's
    cache_write=100       tokens written to the cache (Anthropic format only)
    reasoning=5           completion_tokens_details.reasoning_tokens
    input_audio=3         prompt_tokens_details.audio_tokens
    output_audio=3        completion_tokens_details.audio_tokens
    service_tier=flex     the tier to report as served
    status=503            fail with this status, and a JSON error
    retry_after=7         with a failing status: the Retry-After header
    error_code=content_filter   with a failing status: the error's code
    delay_ms=500          wait before answering
    chunk_ms=5            wait before each streamed token
    break_after=3         cut the connection after that many streamed tokens (in mid-body, when not streamed)
    error_after=3         send an error event after that many streamed tokens
    end_after=3           end the stream after that many tokens, without finish reason and end marker
    usage=no              report no usage
    body=html             answer 200 with a page of HTML
    body=half             answer 200 with half a JSON
    text=emoji            answer in characters of four bytes

A directive may name an instance: `simulate:status=503@west` fails only where the base URL is `…/west/v1`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PREFIX = "simulate:"
_TOKENS = 8
_TOKENS_MAX = 100_000


class BadRequestError(Exception):
    """The request is not one the format allows."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one request asks for."""

    model: str
    streamed: bool
    usage_wanted: bool
    prompt_tokens: int
    directives: Mapping[str, str]

    @property
    def completion_tokens(self) -> int:
        return min(self.number("tokens", _TOKENS), _TOKENS_MAX)

    @property
    def reports_usage(self) -> bool:
        return self.directives.get("usage") != "no"

    def number(self, name: str, default: int = 0) -> int:
        value = self.directives.get(name, "")
        return int(value) if value.isascii() and value.isdigit() else default

    def optional_number(self, name: str) -> int | None:
        return self.number(name) if name in self.directives else None

    def words(self) -> Iterator[str]:
        """The answer, one token at a time; joined they are the whole text."""
        word = "🚀" if self.directives.get("text") == "emoji" else "word"
        for number in range(1, self.completion_tokens + 1):
            yield f"{' ' if number > 1 else ''}{word}-{number}"


def behaviour_for(request: Mapping[str, Any], instance: str) -> Behaviour:
    """Reads a request of either format. Raises BadRequestError."""
    messages = request.get("messages")
    if not isinstance(request.get("model"), str) or not isinstance(messages, list) or not messages:
        raise BadRequestError("model and messages are needed")
    words = [word for message in messages for word in _words(message)]
    directives = _directives(_words(messages[-1]), instance)
    prompt_tokens = len(words)
    if directives.get("prompt", "").isdigit():
        prompt_tokens = int(directives["prompt"])
    options = request.get("stream_options") or {}
    return Behaviour(
        model=request["model"],
        streamed=request.get("stream") is True,
        usage_wanted=options.get("include_usage") is True,
        prompt_tokens=prompt_tokens,
        directives=directives,
    )


def _words(message: object) -> list[str]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content.split()
    parts = content if isinstance(content, list) else []
    return [word for part in parts if isinstance(part, dict) for word in str(part.get("text", "")).split()]


def _directives(words: Sequence[str], instance: str) -> dict[str, str]:
    directives: dict[str, str] = {}
    for word in words:
        name, _, value = word.removeprefix(_PREFIX).partition("=")
        value, _, only_at = value.partition("@")
        if word.startswith(_PREFIX) and only_at in ("", instance):
            directives[name] = value
    return directives
