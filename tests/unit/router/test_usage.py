"""What a provider reports becomes one shape, whose wholes contain their parts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.usage import service_tier_served, usage_from_openai


def report(prompt: int = 1000, completion: int = 200, **parts: Any) -> dict[str, Any]:
    inside_prompt = {name: parts[name] for name in ("cached_tokens", "audio_tokens") if name in parts}
    inside_completion = {"reasoning_tokens": parts["reasoning_tokens"]} if "reasoning_tokens" in parts else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": inside_prompt,
        "completion_tokens_details": inside_completion,
    }


def test_cached_tokens_are_inside_the_input_and_reasoning_inside_the_output() -> None:
    reading = usage_from_openai(report(cached_tokens=600, audio_tokens=10, reasoning_tokens=50))

    assert reading is not None and not reading.clamped
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (1000, 200)
    assert (reading.usage.cached_input_tokens, reading.usage.input_audio_tokens) == (600, 10)
    assert reading.usage.reasoning_tokens == 50


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(report(cached_tokens=1001), id="part above its whole"),
        pytest.param(report(cached_tokens=-1), id="negative part"),
        pytest.param(report(prompt=-5), id="negative whole"),
        pytest.param(report(prompt=10**13), id="beyond all reason"),
        pytest.param(report(cached_tokens="many"), id="not a number"),
    ],
)
def test_a_usage_that_contradicts_itself_is_clamped_and_flagged(broken: dict[str, Any]) -> None:
    reading = usage_from_openai(broken)

    assert reading is not None and reading.clamped
    assert 0 <= reading.usage.cached_input_tokens <= reading.usage.input_tokens <= 10**12


@pytest.mark.parametrize("nothing", [{}, {"prompt_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 3}])
def test_a_report_without_counts_is_no_report(nothing: dict[str, Any]) -> None:
    assert usage_from_openai(nothing) is None


def test_details_that_are_null_are_zero() -> None:
    reading = usage_from_openai(
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": None, "completion_tokens_details": None}
    )

    assert reading is not None and not reading.clamped
    assert reading.usage.cached_input_tokens == 0


_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.floats(allow_nan=False))


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), _values), _values, _values)
def test_whatever_is_reported_no_part_is_larger_than_its_whole(
    counts: dict[str, Any], cached: object, reasoning: object
) -> None:
    reading = usage_from_openai(
        {
            **counts,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )

    if reading is not None:
        assert 0 <= reading.usage.cached_input_tokens <= reading.usage.input_tokens
        assert 0 <= reading.usage.reasoning_tokens <= reading.usage.output_tokens


@pytest.mark.parametrize(("said", "tier"), [("flex", "flex"), ("default", ""), ("auto", ""), (None, ""), (7, "")])
def test_the_tier_that_counts_is_the_one_served(said: object, tier: str) -> None:
    assert service_tier_served({"service_tier": said}) == tier
