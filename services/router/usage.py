"""What a provider says was used, brought into the one shape of `Usage`. Wholes contain their parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollgate.ledger.v1.usage_pb2 import Usage

QUANTITY_MAX = 10**12


@dataclass(frozen=True, slots=True)
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
    cached_tokens = quantities.part(inside_input, "cached_tokens", input_tokens)
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_tokens,
        input_audio_tokens=quantities.part(inside_input, "audio_tokens", input_tokens),
        input_image_tokens=quantities.part(inside_input, "image_tokens", input_tokens),
        reasoning_tokens=quantities.part(inside_output, "reasoning_tokens", output_tokens),
        output_audio_tokens=quantities.part(inside_output, "audio_tokens", output_tokens),
    )
    return UsageReading(usage, quantities.clamped)


def service_tier_served(answer: Mapping[str, Any]) -> str:
    """The tier that the provider says it served; empty for the ordinary one."""
    tier = answer.get("service_tier")
    if not isinstance(tier, str) or tier in ("default", "auto", "standard"):
        return ""
    return tier[:64]


def _details(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = report.get(name)
    return details if isinstance(details, dict) else {}


class _Quantities:
    """Takes quantities out of a report, and remembers whether one was impossible."""

    def __init__(self) -> None:
        self.clamped = False

    def whole(self, report: Mapping[str, Any], name: str) -> int | None:
        value = report.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return self._clamp(value, QUANTITY_MAX)

    def part(self, report: Mapping[str, Any], name: str, whole: int) -> int:
        value = report.get(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool):
            self.clamped = True
            return 0
        return self._clamp(value, whole)

    def _clamp(self, value: int, most: int) -> int:
        clamped = min(max(value, 0), most)
        self.clamped |= clamped != value
        return clamped
