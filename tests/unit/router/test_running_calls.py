"""Running calls share what there is for them, and give it back whatever happens."""

from contextlib import suppress

import pytest

from services.common.errors import UnavailableError
from services.router.faces.running_calls import RunningCalls


def test_a_body_may_grow_into_what_others_leave() -> None:
    running = RunningCalls(2, 100)
    with running.one_more() as hold, running.one_more() as hold_other:
        hold(10)
        hold(60)
        hold_other(40)

        with pytest.raises(UnavailableError):
            hold_other(41)
        with pytest.raises(UnavailableError):
            hold(61)


def test_what_a_call_held_is_free_again_also_when_it_fails() -> None:
    running = RunningCalls(2, 100)
    with pytest.raises(ZeroDivisionError), running.one_more() as hold:
        hold(100)
        raise ZeroDivisionError

    with running.one_more() as hold:
        hold(100)


def test_a_body_that_finds_no_room_keeps_what_it_has() -> None:
    running = RunningCalls(2, 100)
    with running.one_more() as hold:
        hold(70)
        with pytest.raises(UnavailableError):
            hold(101)

        with running.one_more() as hold_other:
            hold_other(30)
            with pytest.raises(UnavailableError):
                hold_other(31)


def test_there_are_no_more_than_may_be_and_one_that_failed_makes_room() -> None:
    running = RunningCalls(2, 100)
    with running.one_more():
        with suppress(ZeroDivisionError), running.one_more():
            assert running.count == 2
            with pytest.raises(UnavailableError), running.one_more():
                pass
            raise ZeroDivisionError

        with running.one_more():
            pass

    assert running.count == 0
