"""What the simulated provider does with a request. Pure: the same request always gets the same answer.

Usage. Every word of a message (text between white space) is one prompt token, directives included, so that
`"Say hello"` is 2. The answer is `word-1 word-2 …`, one completion token per word, 8 unless a directive says otherwise.

Directives are words of the last message, `simulate:<name>=<value>`:

    tokens=20             length of the answer, in tokens
    prompt=1000           prompt tokens to report, whatever the text
    cached=600            tokens read from the cache; may be more than the prompt, as a broken provider's
    cache_write=100       tokens written to the cache
    cache_write_1h=40     of these, for one hour (Anthropic format only)
    reasoning=5           tokens of reasoning; shown as `thought-1 …` where the format shows thoughts
    input_audio=3         tokens of audio in the prompt
    output_audio=3        tokens of audio in the answer
    searches=2            web searches made
    service_tier=flex     the tier to report as served
    tool=weather          answer with a call of this tool, with the arguments {"city":"Ulm"}
    finish=length         the reason for finishing, in the format's own words
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

ARGUMENTS = {"city": "Ulm"}
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
    # The whole request, for what only one format knows.
    request: Mapping[str, Any]

    @property
    def completion_tokens(self) -> int:
        return min(self.number("tokens", _TOKENS), _TOKENS_MAX)

    @property
    def reports_usage(self) -> bool:
        return self.directives.get("usage") != "no"

    @property
    def tool(self) -> str | None:
        """The tool that the answer calls, if it does."""
        return self.directives.get("tool")

    def number(self, name: str, default: int = 0) -> int:
        value = self.directives.get(name, "")
        return int(value) if value.isascii() and value.isdigit() else default

    def optional_number(self, name: str) -> int | None:
        return self.number(name) if name in self.directives else None

    def words(self) -> Iterator[str]:
        """The answer, one token at a time; joined they are the whole text. Nothing where a tool is called instead."""
        word = "🚀" if self.directives.get("text") == "emoji" else "word"
        return _numbered(word, 0 if self.tool else self.completion_tokens)

    def thoughts(self) -> Iterator[str]:
        """The reasoning, one token at a time."""
        return _numbered("thought", min(self.number("reasoning"), _TOKENS_MAX))


def behaviour_for(
    request: Mapping[str, Any],
    instance: str,
    prompts: Sequence[Any] | None = None,
    *,
    model: object = None,
    streamed: bool | None = None,
) -> Behaviour:
    """Reads a request; its `messages`, or else what its format has for a prompt. Raises BadRequestError."""
    prompts = request.get("messages") if prompts is None else prompts
    model = request.get("model") if model is None else model
    if not isinstance(model, str) or not isinstance(prompts, Sequence) or not prompts:
        raise BadRequestError("model and messages are needed")
    directives = _directives(words_of(prompts[-1]), instance)
    prompt_tokens = sum(len(words_of(prompt)) for prompt in prompts)
    if directives.get("prompt", "").isdigit():
        prompt_tokens = int(directives["prompt"])
    options = request.get("stream_options") or {}
    return Behaviour(
        model=model,
        streamed=request.get("stream") is True if streamed is None else streamed,
        usage_wanted=options.get("include_usage") is True,
        prompt_tokens=prompt_tokens,
        directives=directives,
        request=request,
    )


def words_of(said: object) -> list[str]:
    """The words of a text, of a message, or of a part of one, however deep they are."""
    if isinstance(said, str):
        return said.split()
    if isinstance(said, list):
        return [word for each in said for word in words_of(each)]
    if isinstance(said, dict):
        inner = (said.get(name) for name in ("content", "text", "parts", "output", "functionResponse", "response"))
        return [word for each in inner for word in words_of(each)]
    return []


def reject_unknown(request: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises BadRequestError as strict providers do, for members they do not know."""
    unknown = sorted(set(request) - known)
    if unknown:
        raise BadRequestError(f"{unknown[0]}: extra inputs are not permitted")


def _numbered(word: str, count: int) -> Iterator[str]:
    for number in range(1, count + 1):
        yield f"{' ' if number > 1 else ''}{word}-{number}"


def _directives(words: Sequence[str], instance: str) -> dict[str, str]:
    directives: dict[str, str] = {}
    for word in words:
        name, _, value = word.removeprefix(_PREFIX).partition("=")
        value, _, only_at = value.partition("@")
        if word.startswith(_PREFIX) and only_at in ("", instance):
            directives[name] = value
    return directives
