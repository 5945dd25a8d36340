"""Who is let in, and what they are told."""

import pytest

from services.router.limits.limits import Limit, Limiter, LocalWindows, RateLimitedError, Subject


def subject(kind: str = "key", **limit: int) -> Subject:
    return Subject(kind, "1", Limit(**limit))


def limiter() -> Limiter:
    return Limiter(LocalWindows(clock=lambda: 100.0))


async def test_the_answer_says_how_much_is_left_in_the_tightest_window() -> None:
    permit = await limiter().admit(
        [subject(requests_per_minute=10, tokens_per_minute=1_000), subject("project", requests_per_minute=5)], 400
    )

    assert dict(permit.headers) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "61s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "61s",
    }


async def test_a_refusal_names_the_limit_and_when_to_come_back() -> None:
    limits = limiter()
    subjects = [subject(requests_per_minute=10), subject("end user", requests_per_minute=1)]
    await limits.admit(subjects, 0)

    with pytest.raises(
        RateLimitedError, match="This end user is limited to 1 calls a minute; try again in 61 s."
    ) as it:
        await limits.admit(subjects, 0)
    assert it.value.retry_after_seconds == 61
    assert ("x-ratelimit-remaining-requests", "0") in it.value.headers


async def test_without_limits_nothing_is_said() -> None:
    assert (await limiter().admit([], 400)).headers == []
    assert (await limiter().admit([subject()], 400)).headers == []


async def test_tokens_count_as_used_and_only_once() -> None:
    limits, subjects = limiter(), [subject(tokens_per_minute=1_000)]
    permit = await limits.admit(subjects, 4_000)
    await permit.end(100)
    await permit.end(100)

    assert ("x-ratelimit-remaining-tokens", "900") in (await limits.admit(subjects, 0)).headers


async def test_so_many_calls_may_run_at_the_same_time_and_each_end_lets_another_in() -> None:
    limits, subjects = limiter(), [subject(concurrent_calls=2)]
    first, _second = await limits.admit(subjects, 0), await limits.admit(subjects, 0)
    with pytest.raises(RateLimitedError, match="2 calls running at the same time"):
        await limits.admit(subjects, 0)
    await first.end(0)

    await limits.admit(subjects, 0)


async def test_a_call_that_was_refused_does_not_count_as_running() -> None:
    limits = limiter()
    subjects = [subject(concurrent_calls=1, requests_per_minute=0)]
    for _ in range(3):
        with pytest.raises(RateLimitedError, match="0 calls a minute"):
            await limits.admit(subjects, 0)
