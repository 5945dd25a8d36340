from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError
from services.ledger.accounts import (
    ApiKey,
    NewApiKey,
    NewOrganization,
    NewProject,
    NewProviderKey,
    Plan,
    ProjectMode,
    new_api_key_secret,
    organization_uuid,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACME = "0199a000-0000-7000-8000-000000000001"


def an_organization(
    *, display_name: str = "Acme", plan: Plan = Plan.FREE, agreed: int | None = None
) -> NewOrganization:
    return NewOrganization(display_name=display_name, plan=plan, retention_days_agreed=agreed, payload_retained=False)


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


def a_stored_key(*, expire_time: datetime | None = None, revoke_time: datetime | None = None) -> ApiKey:
    return ApiKey(
        api_key_id=UUID(ACME),
        scope=Scope.OPERATOR,
        organization_id=None,
        project_id=None,
        display_name="",
        read_only=False,
        create_time=NOW - timedelta(days=1),
        expire_time=expire_time,
        revoke_time=revoke_time,
    )


@pytest.mark.parametrize(
    ("plan", "agreed", "retention_days"),
    [
        pytest.param(Plan.FREE, None, 3, id="Free keeps 3 days"),
        pytest.param(Plan.PRO, None, 90, id="Pro keeps 90 days"),
        pytest.param(Plan.ENTERPRISE, 1, 1, id="Enterprise keeps what is agreed, at least a day"),
        pytest.param(Plan.ENTERPRISE, 365, 365, id="Enterprise keeps what is agreed, at most a year"),
    ],
)
def test_the_plan_decides_how_long_records_are_kept(plan: Plan, agreed: int | None, retention_days: int) -> None:
    assert an_organization(plan=plan, agreed=agreed).retention_days == retention_days


@pytest.mark.parametrize(
    ("plan", "agreed"),
    [
        pytest.param(Plan.ENTERPRISE, None, id="Enterprise without an agreement"),
        pytest.param(Plan.ENTERPRISE, 366, id="Enterprise beyond a year"),
        pytest.param(Plan.ENTERPRISE, -1, id="Enterprise below a day"),
        pytest.param(Plan.FREE, 3, id="Free with an agreement, even for its own days"),
        pytest.param(Plan.PRO, 365, id="Pro with an agreement"),
    ],
)
def test_retention_days_go_with_the_enterprise_plan_and_no_other(plan: Plan, agreed: int | None) -> None:
    with pytest.raises(InvalidRequestError, match=r"^retention_days "):
        an_organization(plan=plan, agreed=agreed)


@pytest.mark.parametrize("name", ["", "x" * 129, "nul\0", "two\nlines"])
def test_an_organization_has_a_name_that_can_be_shown(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^display_name "):
        an_organization(display_name=name)


@pytest.mark.parametrize("name", ["x", "x" * 128, "株式会社　山田", "Søren & Co. 🚲"])
def test_names_may_be_in_any_script(name: str) -> None:
    assert an_organization(display_name=name).display_name == name


@pytest.mark.parametrize("project_id", ["", "x" * 65, "a b", "a/b", "é", "web\n", "٣"])
def test_a_project_id_is_1_to_64_letters_digits_or_marks(project_id: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^project_id "):
        NewProject(organization_id="", project_id=project_id, mode=ProjectMode.CREDITS)


@pytest.mark.parametrize("project_id", ["w", "Web-2.prod:eu_1", "x" * 64])
def test_a_project_id_may_use_all_of_them(project_id: str) -> None:
    project = NewProject(organization_id="", project_id=project_id, mode=ProjectMode.CREDITS)

    assert project.project_id == project_id


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


@pytest.mark.parametrize("text", ["", "acme", ACME.upper(), f"{{{ACME}}}", ACME.replace("-", "")])
def test_an_organization_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^organization_id "):
        organization_uuid(text)
