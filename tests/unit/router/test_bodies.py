"""Bodies of running calls share what there is for them, and give it back whatever happens."""

import pytest

from services.common.errors import UnavailableError
from services.router.faces.bodies import Bodies


def test_a_body_may_grow_into_what_others_leave() -> None:
    bodies = Bodies(100)
    with bodies.of_one_call() as hold, bodies.of_one_call() as hold_other:
        hold(10)
        hold(60)
        hold_other(40)

        with pytest.raises(UnavailableError):
            hold_other(41)
        with pytest.raises(UnavailableError):
            hold(61)


def test_what_a_call_held_is_free_again_also_when_it_fails() -> None:
    bodies = Bodies(100)
    with pytest.raises(ZeroDivisionError), bodies.of_one_call() as hold:
        hold(100)
        raise ZeroDivisionError

    with bodies.of_one_call() as hold:
        hold(100)


def test_a_body_that_finds_no_room_keeps_what_it_has() -> None:
    bodies = Bodies(100)
    with bodies.of_one_call() as hold:
        hold(70)
        with pytest.raises(UnavailableError):
            hold(101)

        with bodies.of_one_call() as hold_other:
            hold_other(30)
            with pytest.raises(UnavailableError):
                hold_other(31)
