"""Which providers are tried, with whose key, in which order."""

from collections.abc import Mapping

import pytest

from services.router.errors import (
    InsufficientCreditsError,
    ModelNotFoundError,
    OwnKeyMissingError,
    ProvidersThrottledError,
)
from services.router.routing.routing import (
    Candidate,
    Failure,
    Funding,
    Mode,
    PlannedAttempt,
    RoutingTable,
    Wait,
    is_worth_another_try,
    is_worth_trying,
    plan,
)

OPENAI = Candidate("openai", "gpt-4o", "gpt-4o-2024-08-06")
AZURE = Candidate("azure", "gpt-4o", "deployment-7")
BOTH = (OPENAI, AZURE)


def steps(attempts: tuple[PlannedAttempt, ...]) -> list[tuple[str, str]]:
    return [(attempt.candidate.provider, attempt.funding.name) for attempt in attempts]


def planned(
    mode: Mode,
    own_keys: set[str],
    waits: Mapping[tuple[str, str], Wait] = {},
    *,
    credit_available: bool = True,
) -> tuple[PlannedAttempt, ...]:
    return plan(
        BOTH,
        mode,
        {provider: f"key of {provider}" for provider in own_keys},
        credit_available=credit_available,
        wait_of=lambda attempt: waits.get((attempt.candidate.provider, attempt.funding.name)),
    )


def test_a_plain_name_is_tried_at_every_provider_in_the_order_of_configuration() -> None:
    assert RoutingTable([OPENAI, AZURE]).candidates("gpt-4o") == BOTH


def test_a_pinned_name_is_tried_at_its_provider_only() -> None:
    assert RoutingTable([OPENAI, AZURE]).candidates("azure/gpt-4o") == (AZURE,)


@pytest.mark.parametrize("name", ["gpt-5o", "groq/gpt-4o", "", "gpt-4o-2024-08-06"])
def test_a_model_nobody_offers_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        RoutingTable([OPENAI]).candidates(name)


def test_a_canonical_id_with_a_slash_keeps_its_own_meaning() -> None:
    llama = Candidate("groq", "openai/gpt-4o", "llama")

    assert RoutingTable([llama, OPENAI]).candidates("openai/gpt-4o") == (llama,)


CREDITS, OWN = "CREDITS", "OWN_KEY"


@pytest.mark.parametrize(
    ("mode", "own_keys", "expected"),
    [
        pytest.param(Mode.CREDITS, {"openai"}, [("openai", CREDITS), ("azure", CREDITS)], id="credits ignore own keys"),
        pytest.param(Mode.OWN_KEYS, {"azure"}, [("azure", OWN)], id="own keys only where there is one"),
        pytest.param(
            Mode.HYBRID,
            {"openai", "azure"},
            [("openai", OWN), ("azure", OWN), ("openai", CREDITS), ("azure", CREDITS)],
            id="hybrid takes own keys first on every candidate",
        ),
    ],
)
def test_the_mode_decides_whose_keys_are_used(mode: Mode, own_keys: set[str], expected: list[tuple[str, str]]) -> None:
    assert steps(planned(mode, own_keys)) == expected


def test_a_project_of_own_keys_without_a_key_that_fits_is_told_so() -> None:
    with pytest.raises(OwnKeyMissingError, match="openai or azure"):
        planned(Mode.OWN_KEYS, {"groq"})


@pytest.mark.parametrize("mode", [Mode.CREDITS, Mode.HYBRID])
def test_without_credit_nothing_is_tried_on_credit(mode: Mode) -> None:
    with pytest.raises(InsufficientCreditsError):
        planned(mode, set(), credit_available=False)


def test_own_keys_work_without_any_credit() -> None:
    assert steps(planned(Mode.HYBRID, {"azure"}, credit_available=False)) == [("azure", OWN)]


@pytest.mark.parametrize("status", [0, 200, 401, 402, 403, 408, 409, 429, 500, 502, 503, 529])
def test_somebody_else_is_tried_after_failures_that_are_not_the_request_s_fault(status: int) -> None:
    assert is_worth_another_try(Failure("status", status))


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 451])
def test_a_request_that_is_wrong_is_wrong_everywhere(status: int) -> None:
    assert not is_worth_another_try(Failure("status", status))


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        pytest.param(Failure("status", 401), True, id="key refused"),
        pytest.param(Failure("status", 402), True, id="key without money"),
        pytest.param(Failure("status", 403), True, id="key not allowed"),
        pytest.param(Failure("status", 429), True, id="key throttled"),
        pytest.param(Failure("status", 503), False, id="provider down"),
        pytest.param(Failure("connect_error"), False, id="provider away"),
        pytest.param(Failure("timeout"), False, id="provider slow"),
    ],
)
def test_credits_follow_an_own_key_only_where_the_key_was_the_trouble(failure: Failure, expected: bool) -> None:
    own, credit, _other = planned(Mode.HYBRID, {"openai"})

    assert (own.funding, credit.funding) == (Funding.OWN_KEY, Funding.CREDITS)
    assert is_worth_trying(credit, {own.candidate} if failure.is_refused_key else set()) is expected


THROTTLED, REFUSED = Wait(7, is_binding=True), Wait(7, is_binding=False)


def test_a_provider_that_said_when_to_come_back_is_left_out_until_then() -> None:
    assert steps(planned(Mode.CREDITS, set(), {("openai", CREDITS): THROTTLED})) == [("azure", CREDITS)]


def test_a_key_that_is_unlikely_to_work_is_tried_last() -> None:
    waits = {("openai", CREDITS): REFUSED}

    assert steps(planned(Mode.CREDITS, set(), waits)) == [("azure", CREDITS), ("openai", CREDITS)]


def test_when_every_provider_said_so_the_client_is_told_when_the_first_is_back() -> None:
    waits = {("openai", CREDITS): THROTTLED, ("azure", CREDITS): Wait(2.1, is_binding=True)}

    with pytest.raises(ProvidersThrottledError, match="openai and azure cannot take more calls for now") as raised:
        planned(Mode.CREDITS, set(), waits)
    assert raised.value.retry_after_seconds == 3


def test_behind_an_own_key_that_is_throttled_credits_are_not_conditional() -> None:
    attempts = planned(Mode.HYBRID, {"openai"}, {("openai", OWN): THROTTLED})

    assert steps(attempts) == [("openai", CREDITS), ("azure", CREDITS)]
    assert is_worth_trying(attempts[0], set())
