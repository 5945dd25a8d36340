"""What is let through in sixty seconds."""

import random

import pytest

from services.router.limits.windows import Claim, MemoryWindows

CALL = Claim("requests:key:1", limit=3)


def test_up_to_the_limit_is_let_through_and_not_one_more() -> None:
    windows = MemoryWindows()
    lefts = [windows.take_at(100.0, [CALL]).rooms[0].left for _ in range(3)]
    refused = windows.take_at(100.0, [CALL])

    assert lefts == [2, 1, 0]
    assert refused.wait_seconds == 61


def test_who_waits_as_long_as_told_is_let_through() -> None:
    windows = MemoryWindows()
    for now in (100.0, 110.5, 120.0):
        windows.take_at(now, [CALL])
    refused = windows.take_at(130.0, [CALL])

    assert refused.wait_seconds == 31
    assert windows.take_at(160.9, [CALL]).wait_seconds > 0
    assert windows.take_at(161.0, [CALL]).wait_seconds == 0


def test_in_no_sixty_seconds_more_than_the_limit_is_let_through() -> None:
    windows, dice, now, granted = MemoryWindows(), random.Random(7), 0.0, []
    for _ in range(3_000):
        now += dice.expovariate(0.2)
        if windows.take_at(now, [CALL]).wait_seconds == 0:
            granted.append(now)

    assert len(granted) > 500
    assert all(later - earlier > 60 for earlier, later in zip(granted, granted[3:], strict=False))


def test_where_one_window_is_full_nothing_is_taken_from_the_others() -> None:
    windows = MemoryWindows()
    wide = Claim("requests:project:web", limit=10)
    for _ in range(5):
        windows.take_at(0.0, [CALL, wide])

    assert windows.take_at(0.0, [wide]).rooms[0].left == 6


def test_a_call_is_let_in_while_anything_is_left_and_counts_in_full() -> None:
    windows = MemoryWindows()
    tokens = Claim("tokens:key:1", limit=100, amount=90)

    assert windows.take_at(0.0, [tokens]).rooms[0].left == 10
    assert windows.take_at(0.0, [tokens]).rooms[0].left == 0
    assert windows.take_at(0.0, [tokens]).wait_seconds == 61


@pytest.mark.parametrize(("used", "left"), [(40, 60), (95, 5), (200, 0)])
def test_what_was_really_used_takes_the_place_of_the_estimate(used: int, left: int) -> None:
    windows = MemoryWindows()
    tokens = Claim("tokens:key:1", limit=100, amount=50)
    second = windows.take_at(0.0, [tokens]).second
    windows.adjust_at(second, [tokens._replace(amount=used - 50)])

    assert windows.take_at(30.0, [tokens._replace(amount=0)]).rooms[0].left == left


def test_what_a_long_call_gives_back_is_forgotten_together_with_what_it_took() -> None:
    windows = MemoryWindows()
    tokens = Claim("tokens:key:1", limit=100, amount=50)
    second = windows.take_at(0.0, [tokens]).second
    windows.take_at(70.0, [tokens])
    windows.adjust_at(second, [tokens._replace(amount=-20)])

    assert windows.take_at(200.0, [tokens._replace(amount=0)]).rooms[0].left == 100


def test_a_limit_of_zero_lets_nothing_through() -> None:
    assert MemoryWindows().take_at(0.0, [CALL._replace(limit=0)]).wait_seconds > 0
