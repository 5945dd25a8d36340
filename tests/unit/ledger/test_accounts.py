from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.common.errors import InvalidRequestError
from services.ledger.accounts.accounts import (
    NewOrganization,
    NewProject,
    Organization,
    OrganizationChange,
    Plan,
    Project,
    ProjectChange,
    ProjectMode,
    organization_uuid,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACME = "0199a000-0000-7000-8000-000000000001"


def an_organization(
    *, display_name: str = "Acme", plan: Plan = Plan.FREE, agreed: int | None = None
) -> NewOrganization:
    return NewOrganization(display_name=display_name, plan=plan, retention_days_agreed=agreed, payload_retained=False)


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


@pytest.mark.parametrize("text", ["", "acme", ACME.upper(), f"{{{ACME}}}", ACME.replace("-", "")])
def test_an_organization_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^organization_id "):
        organization_uuid(text)


def a_stored_organization(plan: Plan = Plan.FREE, retention_days: int = 3) -> Organization:
    return Organization(
        organization_id=UUID(ACME),
        display_name="Acme",
        plan=plan,
        retention_days=retention_days,
        payload_retained=False,
        create_time=NOW,
        spending_limit=None,
    )


def change(
    *,
    display_name: str | None = None,
    plan: Plan | None = None,
    agreed: int | None = None,
    payload_retained: bool | None = None,
) -> OrganizationChange:
    return OrganizationChange(
        display_name=display_name, plan=plan, retention_days_agreed=agreed, payload_retained=payload_retained
    )


@pytest.mark.parametrize(
    ("before", "wanted", "plan", "retention_days"),
    [
        pytest.param((Plan.FREE, 3), (Plan.PRO, None), Plan.PRO, 90, id="an upgrade"),
        pytest.param((Plan.ENTERPRISE, 200), (Plan.FREE, None), Plan.FREE, 3, id="a downgrade"),
        pytest.param((Plan.PRO, 90), (Plan.ENTERPRISE, 365), Plan.ENTERPRISE, 365, id="an agreement"),
        pytest.param((Plan.ENTERPRISE, 200), (None, 30), Plan.ENTERPRISE, 30, id="another agreement"),
        pytest.param((Plan.ENTERPRISE, 200), (Plan.ENTERPRISE, None), Plan.ENTERPRISE, 200, id="the same again"),
    ],
)
def test_a_change_of_plan_changes_how_long_records_are_kept(
    before: tuple[Plan, int], wanted: tuple[Plan | None, int | None], plan: Plan, retention_days: int
) -> None:
    changed = change(plan=wanted[0], agreed=wanted[1]).applied_to(a_stored_organization(*before))

    assert (changed.plan, changed.retention_days) == (plan, retention_days)


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        pytest.param((Plan.PRO, 90), (Plan.ENTERPRISE, None), id="Enterprise without an agreement"),
        pytest.param((Plan.ENTERPRISE, 200), (None, 366), id="beyond a year"),
        pytest.param((Plan.ENTERPRISE, 200), (None, 0), id="not a day"),
        pytest.param((Plan.PRO, 90), (None, 30), id="an agreement on another plan"),
        pytest.param((Plan.ENTERPRISE, 200), (Plan.PRO, 90), id="a plan and days that it has anyway"),
    ],
)
def test_a_change_to_days_that_do_not_go_with_the_plan_is_refused(
    before: tuple[Plan, int], wanted: tuple[Plan | None, int | None]
) -> None:
    with pytest.raises(InvalidRequestError, match=r"^retention_days "):
        change(plan=wanted[0], agreed=wanted[1]).applied_to(a_stored_organization(*before))


def test_what_a_change_leaves_out_stays_as_it_is() -> None:
    before = a_stored_organization(Plan.ENTERPRISE, 200)

    assert change(display_name="Acme Ltd").applied_to(before).settings == {
        **before.settings,
        "display_name": "Acme Ltd",
    }
    assert change(payload_retained=True).applied_to(before).settings == {**before.settings, "payload_retained": True}


def test_a_change_of_nothing_is_a_slip() -> None:
    with pytest.raises(InvalidRequestError, match=r"^the request names nothing to change"):
        change()
    with pytest.raises(InvalidRequestError, match=r"^the request names nothing to change"):
        ProjectChange(mode=None, archived=None)


def a_stored_project(archive_time: datetime | None = None) -> Project:
    return Project(
        organization_id=UUID(ACME),
        project_id="web",
        mode=ProjectMode.CREDITS,
        create_time=NOW,
        archive_time=archive_time,
    )


def test_a_project_is_archived_since_the_first_time_and_can_come_back() -> None:
    archive, restore = ProjectChange(mode=None, archived=True), ProjectChange(mode=None, archived=False)

    archived = archive.applied_to(a_stored_project(), NOW + timedelta(hours=1))
    again = archive.applied_to(archived, NOW + timedelta(hours=2))

    assert archived.archive_time == again.archive_time == NOW + timedelta(hours=1)
    assert restore.applied_to(archived, NOW).archive_time is None


def test_a_project_is_never_archived_before_it_was_made() -> None:
    archived = ProjectChange(mode=None, archived=True).applied_to(a_stored_project(), NOW - timedelta(seconds=2))

    assert archived.archive_time == NOW


def test_changing_how_an_archived_project_pays_does_not_bring_it_back() -> None:
    change_of_mode = ProjectChange(mode=ProjectMode.HYBRID, archived=None)

    changed = change_of_mode.applied_to(a_stored_project(archive_time=NOW), NOW)

    assert (changed.mode, changed.archive_time) == (ProjectMode.HYBRID, NOW)
