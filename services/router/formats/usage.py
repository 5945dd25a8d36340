"""What a provider says was used, brought into the one shape of `Usage`. Wholes contain their parts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tollgate.ledger.v1.usage_pb2 import Usage

QUANTITY_MAX = 10**12
_ORDINARY_TIERS = ("default", "auto", "standard")
_SEARCHES_BY_PROMPT = re.compile(r"gemini-[12][.-]")


@dataclass(slots=True)
class UsageReading:
    """A usage, and whether something in it had to be put right first."""

    usage: Usage
    clamped: bool


def usage_from_openai(report: Mapping[str, Any]) -> UsageReading | None:
    """Reads the `usage` of a chat completion. None when it has no token counts, which is no report at all."""
    quantities = _Quantities()
    input_tokens = quantities.whole(report, "prompt_tokens")
    output_tokens = quantities.whole(report, "completion_tokens")
    if input_tokens is None or output_tokens is None:
        return None

    inside_input = _details(report, "prompt_tokens_details")
    inside_output = _details(report, "completion_tokens_details")
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=quantities.part(inside_input, "cached_tokens", input_tokens),
        cache_write_tokens=quantities.part(inside_input, "cache_write_tokens", input_tokens),
        input_audio_tokens=quantities.part(inside_input, "audio_tokens", input_tokens),
        input_image_tokens=quantities.part(inside_input, "image_tokens", input_tokens),
        reasoning_tokens=quantities.part(inside_output, "reasoning_tokens", output_tokens),
        output_audio_tokens=quantities.part(inside_output, "audio_tokens", output_tokens),
        output_image_tokens=quantities.part(inside_output, "image_tokens", output_tokens),
    )
    return UsageReading(usage, quantities.clamped)


def usage_from_responses(report: Mapping[str, Any]) -> UsageReading | None:
    """Reads the `usage` of an OpenAI response. None when it has no token counts."""
    quantities = _Quantities()
    input_tokens = quantities.whole(report, "input_tokens")
    output_tokens = quantities.whole(report, "output_tokens")
    if input_tokens is None or output_tokens is None:
        return None

    inside_input = _details(report, "input_tokens_details")
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=quantities.part(inside_input, "cached_tokens", input_tokens),
        cache_write_tokens=quantities.part(inside_input, "cache_write_tokens", input_tokens),
        reasoning_tokens=quantities.part(_details(report, "output_tokens_details"), "reasoning_tokens", output_tokens),
    )
    return UsageReading(usage, quantities.clamped)


def searches_charged(response: Mapping[str, Any], shown: int) -> int:
    """How many web searches of an OpenAI response are charged: as its `tool_usage` says, else as many as it shows."""
    told = _Quantities().whole(_details(_details(response, "tool_usage"), "web_search"), "num_requests")
    return min(shown, QUANTITY_MAX) if told is None else told


def usage_from_embeddings(report: Mapping[str, Any]) -> UsageReading | None:
    """Reads the `usage` of embeddings, which have input only. None when it has no token count."""
    quantities = _Quantities()
    input_tokens = quantities.whole(report, "prompt_tokens")
    return None if input_tokens is None else UsageReading(Usage(input_tokens=input_tokens), quantities.clamped)


def usage_from_images(report: Mapping[str, Any]) -> UsageReading | None:
    """Reads the `usage` of generated images. None when it has no token counts."""
    quantities = _Quantities()
    input_tokens = quantities.whole(report, "input_tokens")
    output_tokens = quantities.whole(report, "output_tokens")
    if input_tokens is None or output_tokens is None:
        return None

    inside_output = _details(report, "output_tokens_details")
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_image_tokens=quantities.part(_details(report, "input_tokens_details"), "image_tokens", input_tokens),
        # Images are all that these models make, unless they say that some of it is text.
        output_image_tokens=quantities.part(inside_output, "image_tokens", output_tokens)
        if "image_tokens" in inside_output
        else output_tokens,
    )
    return UsageReading(usage, quantities.clamped)


def usage_from_anthropic(report: Mapping[str, Any]) -> UsageReading | None:
    """Reads the `usage` of a message. None when it has no token counts.

    The format counts what the cache was read from and written to beside the input, not inside it, and what the model
    did to summarise a long conversation beside all of that.
    """
    quantities = _Quantities()
    uncached_tokens = quantities.whole(report, "input_tokens")
    output_tokens = quantities.whole(report, "output_tokens")
    if uncached_tokens is None or output_tokens is None:
        return None

    read_tokens = quantities.count(report, "cache_read_input_tokens")
    written_tokens, hour_tokens = _written_by_anthropic(quantities, report)
    for summary in _summaries(report):
        uncached_tokens += quantities.count(summary, "input_tokens")
        output_tokens = quantities.sum(output_tokens, quantities.count(summary, "output_tokens"))
        read_tokens = quantities.sum(read_tokens, quantities.count(summary, "cache_read_input_tokens"))
        written, hour = _written_by_anthropic(quantities, summary)
        written_tokens, hour_tokens = quantities.sum(written_tokens, written), quantities.sum(hour_tokens, hour)
    usage = Usage(
        input_tokens=quantities.sum(uncached_tokens, read_tokens, written_tokens),
        output_tokens=output_tokens,
        cached_input_tokens=read_tokens,
        cache_write_tokens=written_tokens,
        cache_write_1h_tokens=hour_tokens,
        reasoning_tokens=quantities.part(_details(report, "output_tokens_details"), "thinking_tokens", output_tokens),
        web_searches=quantities.count(_details(report, "server_tool_use"), "web_search_requests"),
    )
    return UsageReading(usage, quantities.clamped)


def _summaries(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the same model wrote to make a conversation shorter; turns of others are not among it."""
    turns = report.get("iterations")
    entries: Sequence[Any] = turns if isinstance(turns, list) else ()
    return [turn for turn in entries if isinstance(turn, dict) and turn.get("type") == "compaction"]


def _written_by_anthropic(quantities: "_Quantities", report: Mapping[str, Any]) -> tuple[int, int]:
    """What was written to the cache, and how much of it for an hour."""
    by_time = _details(report, "cache_creation")
    written = quantities.count(report, "cache_creation_input_tokens")
    if report.get("cache_creation_input_tokens") is None:
        written = sum(quantities.count(by_time, f"ephemeral_{time}_input_tokens") for time in ("5m", "1h"))
    return written, quantities.part(by_time, "ephemeral_1h_input_tokens", written)


def usage_from_gemini(report: Mapping[str, Any], web_searches: int = 0) -> UsageReading | None:
    """Reads the `usageMetadata` of generated content. None when it has no count of the prompt.

    The format counts thoughts beside the output and the results of its own tools beside the prompt.
    """
    quantities = _Quantities()
    prompt_tokens = quantities.whole(report, "promptTokenCount")
    if prompt_tokens is None:
        return None

    thought_tokens = quantities.count(report, "thoughtsTokenCount")
    input_tokens = quantities.sum(prompt_tokens, quantities.count(report, "toolUsePromptTokenCount"))
    output_tokens = quantities.sum(quantities.count(report, "candidatesTokenCount"), thought_tokens)
    cached_tokens = quantities.part(report, "cachedContentTokenCount", input_tokens)
    in_prompt = _by_modality(report, "promptTokensDetails")
    in_cache = _by_modality(report, "cacheTokensDetails")
    in_output = _by_modality(report, "candidatesTokensDetails")
    audio_tokens = quantities.part(in_prompt, "AUDIO", input_tokens)
    image_tokens = quantities.part(in_prompt, "IMAGE", input_tokens)
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_tokens,
        input_audio_tokens=audio_tokens,
        cached_input_audio_tokens=quantities.part(in_cache, "AUDIO", min(audio_tokens, cached_tokens)),
        input_image_tokens=image_tokens,
        # Absent, not zero, where nothing is said: then the share of images among the cached is worked out by price.
        cached_input_image_tokens=quantities.part(in_cache, "IMAGE", min(image_tokens, cached_tokens))
        if in_cache
        else None,
        reasoning_tokens=thought_tokens,
        output_audio_tokens=quantities.part(in_output, "AUDIO", output_tokens),
        output_image_tokens=quantities.part(in_output, "IMAGE", output_tokens),
        web_searches=web_searches,
    )
    return UsageReading(usage, quantities.clamped)


def searches_charged_by_google(model: str, query_count: int) -> int:
    """Google charges for each query, but up to Gemini 2.5 once for a prompt, however many queries it takes."""
    return min(query_count, 1) if _SEARCHES_BY_PROMPT.match(model) else query_count


def service_tier_served(answer: Mapping[str, Any]) -> str:
    """The tier that the provider says it served; empty for the ordinary one."""
    if answer.get("speed") == "fast":
        # Anthropic's fast mode multiplies the prices of the tokens, as only tiers do.
        return "fast"
    tier = answer.get("service_tier")
    if not isinstance(tier, str) or tier in _ORDINARY_TIERS:
        return ""
    return tier[:64]


def _details(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = report.get(name)
    return details if isinstance(details, dict) else {}


def _by_modality(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = report.get(name)
    entries: Sequence[Any] = details if isinstance(details, list) else ()
    return {str(entry.get("modality")): entry.get("tokenCount") for entry in entries if isinstance(entry, dict)}


class _Quantities:
    """Takes quantities out of a report, and remembers whether one was impossible."""

    def __init__(self) -> None:
        self.clamped = False

    def whole(self, report: Mapping[str, Any], name: str) -> int | None:
        value = report.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return self._clamp(value, QUANTITY_MAX)

    def count(self, report: Mapping[str, Any], name: str) -> int:
        """A quantity that stands for itself; absent is none."""
        return self.part(report, name, QUANTITY_MAX)

    def part(self, report: Mapping[str, Any], name: str, whole: int) -> int:
        value = report.get(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool):
            self.clamped = True
            return 0
        return self._clamp(value, whole)

    def sum(self, *quantities: int) -> int:
        return self._clamp(sum(quantities), QUANTITY_MAX)

    def _clamp(self, value: int, most: int) -> int:
        if 0 <= value <= most:
            return value
        self.clamped = True
        return 0 if value < 0 else most
