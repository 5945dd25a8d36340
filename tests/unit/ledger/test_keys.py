from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.common.authentication import Scope
from services.common.errors import ForbiddenError, InvalidRequestError
from services.ledger.accounts.keys import (
    ApiKey,
    ApiKeyChange,
    NewApiKey,
    NewProviderKey,
    new_api_key_secret,
)
from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACME = "0199a000-0000-7000-8000-000000000001"


def an_api_key(
    *, scope: Scope = Scope.ORGANIZATION, organization_id: str = "", project_id: str | None = None, name: str = ""
) -> NewApiKey:
    return NewApiKey(
        scope=scope,
        organization_id=organization_id,
        project_id=project_id,
        display_name=name,
        read_only=False,
        expire_time=None,
    )


def a_stored_key(
    *,
    scope: Scope = Scope.OPERATOR,
    expire_time: datetime | None = None,
    revoke_time: datetime | None = None,
    spending_limit: SpendingLimit | None = None,
) -> ApiKey:
    return ApiKey(
        api_key_id=UUID(ACME),
        scope=scope,
        organization_id=None if scope is Scope.OPERATOR else UUID(ACME),
        project_id=None,
        display_name="",
        read_only=False,
        create_time=NOW - timedelta(days=1),
        expire_time=expire_time,
        revoke_time=revoke_time,
        spending_limit=spending_limit,
    )


@pytest.mark.parametrize(
    ("scope", "organization_id", "project_id", "field"),
    [
        pytest.param(Scope.SERVICE, "", None, "scope", id="services have no keys"),
        pytest.param(Scope.OPERATOR, ACME, None, "organization_id", id="operator keys belong to no organization"),
        pytest.param(Scope.OPERATOR, "", "web", "project_id", id="operator keys belong to no project"),
        pytest.param(Scope.ORGANIZATION, ACME, "web", "project_id", id="organization keys belong to no project"),
        pytest.param(Scope.PROJECT, ACME, None, "project_id", id="project keys need a project"),
        pytest.param(Scope.PROJECT, ACME, "a b", "project_id", id="project keys need a possible project"),
    ],
)
def test_a_keys_scope_decides_what_it_may_name(
    scope: Scope, organization_id: str, project_id: str | None, field: str
) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{field} "):
        an_api_key(scope=scope, organization_id=organization_id, project_id=project_id)


def test_a_keys_name_may_be_empty_but_not_long() -> None:
    assert an_api_key(name="").display_name == ""
    with pytest.raises(InvalidRequestError, match=r"^display_name "):
        an_api_key(name="x" * 129)


def test_a_key_ends_at_the_very_moment_it_expires() -> None:
    key = a_stored_key(expire_time=NOW)

    assert key.in_force(NOW - timedelta(microseconds=1))
    assert not key.in_force(NOW)


def test_a_revoked_key_is_not_in_force_whatever_its_expiry() -> None:
    assert not a_stored_key(expire_time=NOW + timedelta(days=1), revoke_time=NOW).in_force(NOW)
    assert a_stored_key().in_force(NOW)


@pytest.mark.parametrize("secret", ["", "x" * 4_097, "sk\r\nx-admin: yes"])
def test_a_provider_key_fits_into_a_header(secret: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^secret "):
        NewProviderKey(organization_id="", provider="openai", secret=secret)


def test_a_provider_key_is_never_printed() -> None:
    assert "sk-live" not in repr(NewProviderKey(organization_id="", provider="openai", secret="sk-live"))


def test_a_new_key_is_tg_and_43_characters_that_nobody_can_guess() -> None:
    made = {new_api_key_secret() for _ in range(100)}

    assert len(made) == 100
    for secret in made:
        assert secret.startswith("tg_")
        assert len(secret) == 46


def a_change(
    *,
    display_name: str | None = None,
    expire_time: datetime | None = None,
    spending_limit: SpendingLimit | None = None,
    clear_spending_limit: bool = False,
) -> ApiKeyChange:
    return ApiKeyChange(
        display_name=display_name,
        expire_time=expire_time,
        spending_limit=spending_limit,
        clear_spending_limit=clear_spending_limit,
    )


@pytest.mark.parametrize(
    ("amount", "amount_pico"), [("0", 0), ("5", 5 * 10**12), ("0.000000000001", 1), ("9000000.000", 9_000_000 * 10**12)]
)
def test_a_spending_limit_is_exact(amount: str, amount_pico: int) -> None:
    assert SpendingLimit.of(amount, SpendingPeriod.DAY) == SpendingLimit(amount_pico, SpendingPeriod.DAY)


@pytest.mark.parametrize(
    "amount", ["", "-1", "five", "1e3", "0.0000000000001", "9000000.000000000001", "NaN", "9" * 30, "٣", "x" * 10_000]
)
def test_an_amount_that_no_limit_can_have_is_refused_in_a_short_sentence(amount: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^spending_limit\.amount ") as caught:
        SpendingLimit.of(amount, SpendingPeriod.DAY)

    assert len(caught.value.message) < 100


def test_a_change_of_nothing_is_a_slip() -> None:
    with pytest.raises(InvalidRequestError, match=r"^the request names nothing to change"):
        a_change()


def test_a_limit_cannot_be_set_and_taken_away_at_once() -> None:
    with pytest.raises(InvalidRequestError, match=r"^clear_spending_limit "):
        a_change(spending_limit=SpendingLimit(0, SpendingPeriod.DAY), clear_spending_limit=True)


def test_a_key_may_get_an_end_and_a_closer_one() -> None:
    key = a_change(expire_time=NOW + timedelta(days=2)).applied_to(a_stored_key(), NOW)
    sooner = a_change(expire_time=NOW + timedelta(days=1)).applied_to(key, NOW)

    assert sooner.expire_time == NOW + timedelta(days=1)


def test_a_key_never_ends_before_it_was_made_whatever_the_clock_says() -> None:
    key = a_stored_key()

    with pytest.raises(InvalidRequestError, match=r"^expire_time "):
        a_change(expire_time=key.create_time).applied_to(key, key.create_time - timedelta(seconds=2))


def test_a_limit_of_zero_is_not_no_limit() -> None:
    nothing = SpendingLimit(0, SpendingPeriod.TOTAL)
    key = a_stored_key(scope=Scope.ORGANIZATION)

    limited = a_change(spending_limit=nothing).applied_to(key, NOW)

    assert limited.spending_limit == nothing
    assert (limited.settings["spending_limit"], key.settings["spending_limit"]) == ("0", None)


def test_a_key_without_end_or_limit_may_create_any() -> None:
    a_stored_key().require_may_create(an_api_key())
    a_stored_key().require_may_limit()


def test_a_limit_of_any_height_keeps_a_key_from_creating_another_that_spends() -> None:
    limited = a_stored_key(scope=Scope.ORGANIZATION, spending_limit=SpendingLimit(10**18, SpendingPeriod.DAY))

    with pytest.raises(ForbiddenError):
        limited.require_may_create(an_api_key())
