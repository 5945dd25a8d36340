"""The model of the books sees every way in which they can be wrong."""

import random
from dataclasses import replace

import pytest

from tests.faults.books_model import Booked, Call, Ending, Model, a_call

CALL = Call("call-1", "gpt-4o", input_tokens=100, cached_tokens=40, output_tokens=10, streamed=False)
# 60 tokens at 2.50 USD, 40 at 1.25 USD and 10 at 10 USD per million.
COST_PICO = 300_000_000
BOOKED = Booked("call-1", "id-1", 100, 10, COST_PICO, COST_PICO, is_estimated=False)


def a_model(ending: Ending = Ending.FINISHED) -> Model:
    model = Model()
    model.begin(CALL)
    model.end(CALL, ending, "id-1")
    return model


def test_a_cached_token_is_cheaper_than_a_fresh_one() -> None:
    assert CALL.cost_pico == COST_PICO


def test_a_call_that_is_booked_as_it_was_seen_is_right() -> None:
    found = a_model().compare([BOOKED])

    assert (found.lost, found.doubled, found.invented, found.misbilled) == ([], [], [], [])
    assert (found.call_count, found.finished_count) == (1, 1)


def test_a_finished_call_that_is_not_booked_is_lost() -> None:
    assert a_model().compare([]).lost == ["call-1"]


def test_a_call_that_nobody_saw_finish_may_be_missing() -> None:
    assert a_model(Ending.UNFINISHED).compare([]).lost == []


@pytest.mark.parametrize("ending", Ending)
def test_no_call_is_booked_twice(ending: Ending) -> None:
    assert a_model(ending).compare([BOOKED, replace(BOOKED, request_id="id-2")]).doubled == ["call-1"]


def test_a_call_that_nobody_made_is_invented() -> None:
    assert Model().compare([BOOKED]).invented == ["call-1"]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(BOOKED, charged_pico=0),
        replace(BOOKED, cost_pico=COST_PICO + 1, charged_pico=COST_PICO + 1),
        replace(BOOKED, input_tokens=99),
        replace(BOOKED, output_tokens=None),
        replace(BOOKED, cost_pico=None),
        replace(BOOKED, request_id="id-2"),
    ],
    ids=("free", "a pico too much", "other input", "no output", "no price", "another call's id"),
)
def test_a_finished_call_is_booked_to_the_last_token_and_pico(wrong: Booked) -> None:
    assert a_model().compare([wrong]).misbilled == ["call-1"]


@pytest.mark.parametrize(
    ("booked", "is_right"),
    [
        (replace(BOOKED, cost_pico=0, charged_pico=0, input_tokens=None, output_tokens=None), True),
        (BOOKED, True),
        (replace(BOOKED, charged_pico=7, cost_pico=7, is_estimated=True), True),
        (replace(BOOKED, charged_pico=7, cost_pico=7), False),
    ],
    ids=("for nothing", "in full", "as estimated", "at another price"),
)
def test_a_call_that_nobody_saw_finish_costs_nothing_or_what_the_provider_did(booked: Booked, is_right: bool) -> None:
    assert (a_model(Ending.UNFINISHED).compare([booked]).misbilled == []) == is_right


def test_a_record_that_the_run_damaged_may_be_lost_but_not_charged_wrongly() -> None:
    model = a_model()
    model.damaged.add("call-1")

    assert model.compare([]).lost == []
    assert model.compare([replace(BOOKED, charged_pico=7, cost_pico=7)]).misbilled == ["call-1"]


def test_the_same_seed_makes_the_same_calls() -> None:
    first, second = (
        [a_call(f"call-{number}", dice, trouble_share=0.3) for number in range(50)]
        for dice in (random.Random(3), random.Random(3))
    )

    assert first == second
