"""When providers and keys are avoided, and when they are tried again."""

import pytest

from services.router.routing.health import Health, Way
from services.router.routing.routing import Candidate, Failure

WAY = Way("openai", "gpt-4o")
CANDIDATE = Candidate("openai", "gpt-4o", "gpt-4o-2024-08-06")
DOWN = Failure("status", 503)


def failing(health: Health, times: int, now: float = 0.0, failure: Failure = DOWN) -> None:
    for _ in range(times):
        health.failed(WAY, failure, None, now)


def is_cooling(health: Health, now: float) -> bool:
    return health.standing(CANDIDATE, now).is_cooling


@pytest.mark.parametrize(
    "failure",
    [DOWN, Failure("connect_error"), Failure("timeout"), Failure("bad_answer", 200), Failure("status", 408)],
    ids=lambda failure: f"{failure.error_type} {failure.status}",
)
def test_a_provider_cools_down_after_its_third_failure(failure: Failure) -> None:
    health = Health(cooldown_seconds=5)
    failing(health, 2, failure=failure)
    before = is_cooling(health, 0)
    failing(health, 1, failure=failure)

    assert (before, is_cooling(health, 0), is_cooling(health, 4.9), is_cooling(health, 5)) == (False, True, True, False)


def test_a_provider_that_answers_more_often_than_it_fails_does_not_cool_down() -> None:
    health = Health()
    for _ in range(20):
        health.answered(WAY, 0.1, 0.0)
    failing(health, 10)

    assert not is_cooling(health, 0)
    assert health.standing(CANDIDATE, 0).is_degraded


def test_each_cooldown_in_a_row_is_twice_as_long_up_to_a_minute() -> None:
    health, now, seconds = Health(cooldown_seconds=5), 0.0, []
    failing(health, 2)
    for _ in range(6):
        failing(health, 1, now)
        start = now
        while is_cooling(health, now):
            now += 1
        seconds.append(now - start)

    assert seconds == [5, 10, 20, 40, 60, 60]


def test_calls_that_were_under_way_do_not_lengthen_a_cooldown() -> None:
    health = Health(cooldown_seconds=5)
    failing(health, 30)

    assert not is_cooling(health, 5)


def test_one_answer_ends_a_cooldown_and_what_led_to_it() -> None:
    health = Health(cooldown_seconds=5)
    failing(health, 3)
    health.answered(WAY, 0.1, 6)
    failing(health, 1, 6)

    assert not is_cooling(health, 6)


def test_failures_are_forgotten_with_time() -> None:
    health = Health()
    failing(health, 2, now=0)
    failing(health, 1, now=300)

    assert not is_cooling(health, 300)
    assert health.failure_share("openai") == 1.0


def test_one_broken_model_makes_only_itself_cool_down_while_others_of_the_provider_answer() -> None:
    health = Health()
    for _ in range(10):
        health.answered(Way("openai", "o3"), 0.1, 0.0)
    failing(health, 5)

    assert is_cooling(health, 0)
    assert not health.standing(Candidate("openai", "o3", "o3"), 0).is_cooling
    assert health.is_well("openai", 0)
    assert health.failing_models("openai", 0) == ["gpt-4o"]


@pytest.mark.parametrize("status", [401, 402, 403, 409, 429])
def test_trouble_with_a_key_says_nothing_about_its_provider(status: int) -> None:
    health = Health()
    failing(health, 10, failure=Failure("status", status))

    assert not is_cooling(health, 0)
    assert health.wait(WAY, 0) is not None
    assert health.wait(Way("openai", "gpt-4o", "another key"), 0) is None
    assert health.wait(Way("openai", "o3"), 0) is None


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_to_the_second(status: int) -> None:
    health = Health()
    health.failed(WAY, Failure("status", status), 7, 100.0)
    wait = health.wait(WAY, 106.9)

    assert wait is not None and wait.is_binding
    assert wait.seconds == pytest.approx(0.1)
    assert health.wait(WAY, 107) is None


def test_a_key_that_was_refused_is_avoided_for_a_while_but_not_out_of_bounds() -> None:
    health = Health()
    health.failed(WAY, Failure("status", 401), None, 0.0)
    wait = health.wait(WAY, 9.9)

    assert wait is not None and not wait.is_binding
    assert health.wait(WAY, 10) is None


def test_a_provider_cannot_send_everybody_away_for_a_day() -> None:
    health = Health()
    health.failed(WAY, Failure("status", 429), 86_400, 0.0)

    assert health.wait(WAY, 301) is None


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_request_that_is_wrong_is_no_failure_of_the_provider(status: int) -> None:
    health = Health()
    failing(health, 10, failure=Failure("status", status))

    assert health.failure_share("openai") == 0


def test_without_a_cooldown_nothing_cools_down() -> None:
    health = Health(cooldown_seconds=0)
    failing(health, 50)

    assert not is_cooling(health, 0)


def test_latency_follows_what_was_seen_last_and_is_forgotten_after_a_minute() -> None:
    health = Health()
    health.answered(WAY, 1.0, 0.0)
    health.answered(WAY, 2.0, 1.0)

    assert health.standing(CANDIDATE, 1).latency_seconds == pytest.approx(1.2)
    assert health.standing(CANDIDATE, 61).latency_seconds is None
