"""Which providers are tried, with whose key, in which order."""

import pytest

from services.router.errors import InsufficientCreditsError, ModelNotFoundError, OwnKeyMissingError
from services.router.routing import (
    Candidate,
    Failure,
    Funding,
    Mode,
    PlannedAttempt,
    RoutingTable,
    is_worth_another_try,
    is_worth_trying,
    plan,
)

OPENAI = Candidate("openai", "gpt-4o", "gpt-4o-2024-08-06")
AZURE = Candidate("azure", "gpt-4o", "deployment-7")
BOTH = (OPENAI, AZURE)


def steps(attempts: tuple[PlannedAttempt, ...]) -> list[tuple[str, str]]:
    return [(attempt.candidate.provider, attempt.funding.name) for attempt in attempts]


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
            {"openai"},
            [("openai", OWN), ("openai", CREDITS), ("azure", CREDITS)],
            id="hybrid takes the own key first on every candidate",
        ),
    ],
)
def test_the_mode_decides_whose_keys_are_used(mode: Mode, own_keys: set[str], expected: list[tuple[str, str]]) -> None:
    assert steps(plan(BOTH, mode, own_keys, credit_available=True)) == expected


def test_a_project_of_own_keys_without_a_key_that_fits_is_told_so() -> None:
    with pytest.raises(OwnKeyMissingError, match="openai or azure"):
        plan(BOTH, Mode.OWN_KEYS, {"groq"}, credit_available=True)


@pytest.mark.parametrize("mode", [Mode.CREDITS, Mode.HYBRID])
def test_without_credit_nothing_is_tried_on_credit(mode: Mode) -> None:
    with pytest.raises(InsufficientCreditsError):
        plan(BOTH, mode, set(), credit_available=False)


def test_own_keys_work_without_any_credit() -> None:
    assert steps(plan(BOTH, Mode.HYBRID, {"azure"}, credit_available=False)) == [("azure", OWN)]


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
    _own, credit, _other = plan(BOTH, Mode.HYBRID, {"openai"}, credit_available=True)

    assert credit.funding is Funding.CREDITS
    assert is_worth_trying(credit, failure) is expected
