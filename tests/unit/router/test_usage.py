"""What a provider reports becomes one shape, whose wholes contain their parts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.formats.usage import (
    UsageReading,
    searches_charged_by_google,
    service_tier_served,
    usage_from_anthropic,
    usage_from_embeddings,
    usage_from_gemini,
    usage_from_images,
    usage_from_openai,
    usage_from_responses,
)
from tollgate.ledger.v1.usage_pb2 import Usage


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


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        *((name, name) for name in ("flex", "priority", "batch", "scale")),
        *((ordinary, "") for ordinary in ("default", "auto", "standard", None, 7)),
    ],
)
def test_the_tier_that_counts_is_the_one_served(said: object, tier: str) -> None:
    assert service_tier_served({"service_tier": said}) == tier


@pytest.mark.parametrize(("speed", "tier"), [("fast", "fast"), ("standard", "priority"), (None, "priority")])
def test_anthropics_fast_mode_is_a_tier_of_its_own(speed: object, tier: str) -> None:
    assert service_tier_served({"service_tier": "priority", "speed": speed}) == tier


def test_predicted_tokens_that_were_rejected_are_inside_the_output_and_not_added_to_it() -> None:
    reported = report(completion=200)
    reported["completion_tokens_details"] = {"accepted_prediction_tokens": 50, "rejected_prediction_tokens": 120}

    assert used(usage_from_openai(reported)) == Usage(input_tokens=1000, output_tokens=200)


def test_speech_is_inside_the_output_with_its_own_count() -> None:
    reported = report(completion=200)
    reported["completion_tokens_details"] = {"audio_tokens": 150, "text_tokens": 50}

    assert used(usage_from_openai(reported)) == Usage(input_tokens=1000, output_tokens=200, output_audio_tokens=150)


def used(reading: UsageReading | None) -> Usage:
    assert reading is not None and not reading.clamped
    return reading.usage


def test_anthropic_counts_the_cache_beside_the_input_and_we_inside_it() -> None:
    report = {
        "input_tokens": 50,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
        "server_tool_use": {"web_search_requests": 2},
    }

    assert used(usage_from_anthropic(report)) == Usage(
        input_tokens=100,
        cached_input_tokens=30,
        cache_write_tokens=20,
        cache_write_1h_tokens=5,
        output_tokens=9,
        reasoning_tokens=4,
        web_searches=2,
    )


def test_what_anthropic_summarises_of_a_long_conversation_counts_too() -> None:
    """It is told beside the total, and charged like the rest."""
    said = {"type": "message", "input_tokens": 23, "output_tokens": 10}
    summary = {
        "type": "compaction",
        "input_tokens": 100,
        "cache_read_input_tokens": 50,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_1h_input_tokens": 30},
        "output_tokens": 3,
    }
    report = {"input_tokens": 23, "output_tokens": 10, "iterations": [summary, said, "?"]}

    assert used(usage_from_anthropic(report)) == Usage(
        input_tokens=203, cached_input_tokens=50, cache_write_tokens=30, cache_write_1h_tokens=30, output_tokens=13
    )


def test_what_another_model_says_in_the_same_answer_is_not_charged_like_this_one() -> None:
    advice = {"type": "advisor_message", "model": "dearer", "input_tokens": 100, "output_tokens": 3}
    report = {"input_tokens": 23, "output_tokens": 10, "iterations": [advice]}

    assert used(usage_from_anthropic(report)) == Usage(input_tokens=23, output_tokens=10)


def test_writes_that_are_told_by_their_time_only_are_added_up() -> None:
    by_time = {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5}
    usage = used(usage_from_anthropic({"input_tokens": 1, "output_tokens": 1, "cache_creation": by_time}))

    assert (usage.input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (21, 20, 5)


def test_gemini_counts_thoughts_beside_the_output_and_we_inside_it() -> None:
    report = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 10,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 40,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}, {"modality": "IMAGE", "tokenCount": 30}],
        "cacheTokensDetails": [{"modality": "IMAGE", "tokenCount": 25}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
    }

    assert used(usage_from_gemini(report, web_searches=1)) == Usage(
        input_tokens=110,
        output_tokens=25,
        reasoning_tokens=5,
        cached_input_tokens=40,
        input_image_tokens=30,
        cached_input_image_tokens=25,
        output_audio_tokens=3,
        web_searches=1,
    )


@pytest.mark.parametrize(
    ("model", "searches"),
    [
        pytest.param("gemini-2.5-flash", 1, id="once for a prompt, up to Gemini 2.5"),
        pytest.param("gemini-2.0-flash-001", 1, id="likewise before"),
        pytest.param("gemini-3-pro-preview", 3, id="by the query since Gemini 3"),
        pytest.param("", 3, id="by the query where nobody says"),
    ],
)
def test_google_charges_for_searches_by_the_prompt_or_by_the_query(model: str, searches: int) -> None:
    assert searches_charged_by_google(model, 3) == searches
    assert searches_charged_by_google(model, 0) == 0


def test_what_of_the_cache_were_images_is_absent_where_gemini_does_not_say() -> None:
    usage = used(usage_from_gemini({"promptTokenCount": 9, "cachedContentTokenCount": 4}))

    assert not usage.HasField("cached_input_image_tokens")


def test_responses_embeddings_and_images_are_read_by_their_own_names() -> None:
    response = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    image = {"input_tokens": 10, "input_tokens_details": {"image_tokens": 4}, "output_tokens": 1056}

    assert used(usage_from_responses(response)) == Usage(
        input_tokens=10, cached_input_tokens=4, cache_write_tokens=2, output_tokens=6, reasoning_tokens=5
    )
    assert used(usage_from_embeddings({"prompt_tokens": 3, "total_tokens": 3})) == Usage(input_tokens=3)
    assert used(usage_from_images(image)) == Usage(
        input_tokens=10, input_image_tokens=4, output_tokens=1056, output_image_tokens=1056
    )


_readers = st.sampled_from(
    [
        *(usage_from_openai, usage_from_responses, usage_from_embeddings),
        *(usage_from_images, usage_from_anthropic, usage_from_gemini),
    ]
)
_names = st.sampled_from(
    """prompt_tokens completion_tokens input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens
    cache_creation input_tokens_details output_tokens_details prompt_tokens_details completion_tokens_details
    server_tool_use iterations cached_tokens reasoning_tokens image_tokens audio_tokens thinking_tokens
    ephemeral_1h_input_tokens ephemeral_5m_input_tokens web_search_requests promptTokenCount
    candidatesTokenCount thoughtsTokenCount cachedContentTokenCount promptTokensDetails cacheTokensDetails
    modality tokenCount""".split()  # noqa: SIM905
)
_reports = st.dictionaries(
    _names,
    st.recursive(
        _values, lambda inner: st.dictionaries(_names, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=6
    ),
    max_size=8,
)


@given(_readers, _reports)
def test_whatever_any_format_reports_no_part_is_larger_than_its_whole(reader: Any, reported: dict[str, Any]) -> None:
    reading = reader(reported)
    if reading is None:
        return

    usage = reading.usage
    assert 0 <= usage.cache_write_1h_tokens <= usage.cache_write_tokens
    for part in ("cached_input_tokens", "cache_write_tokens", "input_audio_tokens", "input_image_tokens"):
        assert 0 <= getattr(usage, part) <= usage.input_tokens <= 10**12
    for part in ("reasoning_tokens", "output_image_tokens", "output_audio_tokens"):
        assert 0 <= getattr(usage, part) <= usage.output_tokens <= 10**12
