import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from services.common.authentication import Scope
from services.common.errors import ForbiddenError, UnavailableError
from services.ledger.accounts.accounts import Plan, ProjectMode
from tests.conftest import Database
from tests.integration.ledger.account_builders import (
    NOW,
    OPERATOR,
    Keepers,
    a_project,
    a_provider_key,
    an_api_key,
    an_organization,
    api_key_change,
    bearer_of,
    keepers_of,
    organization_change,
    project_change,
)

Rows = list[dict[str, Any]]


@pytest.fixture
async def keepers(database: Database) -> AsyncIterator[Keepers]:
    async with keepers_of(database.ledger_url) as made:
        yield made


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.admin_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def audit_of(admin: psycopg.Connection[dict[str, Any]], organization_id: UUID) -> Rows:
    return admin.execute(
        "SELECT actor_scope, actor_api_key_id, action, subject, before, details AS after, create_time"
        " FROM ledger.audit_log WHERE organization_id = %s ORDER BY audit_id",
        [organization_id],
    ).fetchall()


def plans_of(admin: psycopg.Connection[dict[str, Any]], organization_id: UUID) -> list[tuple[Any, ...]]:
    rows = admin.execute(
        "SELECT valid_from, plan, retention_days FROM ledger.organization_plan"
        " WHERE organization_id = %s ORDER BY valid_from",
        [organization_id],
    ).fetchall()
    return [tuple(row.values()) for row in rows]


async def test_every_change_is_in_the_audit_log_with_who_made_it_and_when(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization()
    key, secret = await keepers.keys.create_api_key(OPERATOR, an_api_key(acme))
    own = bearer_of(key)
    keepers.clock.now = NOW + timedelta(hours=1)
    await keepers.accounts.create_project(own, a_project())
    await keepers.accounts.update_project(own, "", "web", project_change(mode=ProjectMode.HYBRID))
    await keepers.accounts.update_organization(own, str(acme), organization_change(payload_retained=True))
    await keepers.keys.set_provider_key(own, a_provider_key(secret="sk-private"))
    await keepers.keys.delete_provider_key(own, "", "openai")
    await keepers.keys.update_api_key(own, str(key.api_key_id), api_key_change(display_name="Nightly"))
    await keepers.keys.revoke_api_key(own, str(key.api_key_id))

    entries = audit_of(admin, acme)

    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("organization.create", str(acme)),
        ("api_key.create", str(key.api_key_id)),
        ("project.create", "web"),
        ("project.update", "web"),
        ("organization.update", str(acme)),
        ("provider_key.set", "openai"),
        ("provider_key.delete", "openai"),
        ("api_key.update", str(key.api_key_id)),
        ("api_key.revoke", str(key.api_key_id)),
    ]
    assert [str(entry["actor_api_key_id"]) for entry in entries] == [OPERATOR.api_key_id] * 2 + [own.api_key_id] * 7
    assert [entry["actor_scope"] for entry in entries] == [Scope.OPERATOR] * 2 + [Scope.ORGANIZATION] * 7
    assert [entry["create_time"] for entry in entries] == [NOW] * 2 + [keepers.clock.now] * 7
    assert secret not in str(entries)
    assert "sk-private" not in str(entries)


async def test_the_audit_log_tells_what_a_change_replaced_and_nothing_that_stayed(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization()
    await keepers.accounts.create_project(OPERATOR, a_project(acme))
    await keepers.accounts.update_project(OPERATOR, str(acme), "web", project_change(archived=True))
    change = organization_change(display_name="Acme", plan=Plan.ENTERPRISE, retention_days_agreed=200)
    await keepers.accounts.update_organization(OPERATOR, str(acme), change)

    made, project_made, archived, changed = audit_of(admin, acme)

    assert made["before"] is None
    assert made["after"] == {
        "display_name": "Acme",
        "plan": "PRO",
        "retention_days": 90,
        "payload_retained": False,
    }
    assert (project_made["before"], project_made["after"]) == (None, {"mode": "CREDITS"})
    assert archived["before"] == {"archive_time": None}
    assert archived["after"] == {"archive_time": "2026-03-01T12:00:00Z"}
    assert changed["before"] == {"plan": "PRO", "retention_days": 90}
    assert changed["after"] == {"plan": "ENTERPRISE", "retention_days": 200}


async def test_a_change_that_changes_nothing_leaves_no_trace(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization()
    await keepers.accounts.create_project(OPERATOR, a_project(acme))
    lines, plans = len(audit_of(admin, acme)), plans_of(admin, acme)

    change = organization_change(display_name="Acme", plan=Plan.PRO, payload_retained=False)
    await keepers.accounts.update_organization(OPERATOR, str(acme), change)
    await keepers.accounts.update_project(
        OPERATOR, str(acme), "web", project_change(mode=ProjectMode.CREDITS, archived=False)
    )

    assert (len(audit_of(admin, acme)), plans_of(admin, acme)) == (lines, plans)


async def test_a_change_that_cannot_be_audited_does_not_happen(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization()
    admin.execute("REVOKE INSERT ON ledger.audit_log FROM tollgate_ledger")
    try:
        with pytest.raises(Exception, match="permission denied for table audit_log"):
            await keepers.accounts.create_organization(OPERATOR, an_organization("Unaudited"))
        with pytest.raises(Exception, match="permission denied for table audit_log"):
            await keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(plan=Plan.FREE))
    finally:
        admin.execute("GRANT INSERT ON ledger.audit_log TO tollgate_ledger")

    found = admin.execute("SELECT FROM ledger.organization WHERE display_name = 'Unaudited'").fetchall()
    assert found == []
    assert (await keepers.reader.organization(OPERATOR, str(acme))).plan is Plan.PRO
    assert len(plans_of(admin, acme)) == 1


async def test_which_plan_held_when_is_kept(keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]) -> None:
    acme = await keepers.organization(an_organization(plan=Plan.FREE))
    keepers.clock.now = NOW + timedelta(days=1)
    change = organization_change(plan=Plan.ENTERPRISE, retention_days_agreed=365)
    await keepers.accounts.update_organization(OPERATOR, str(acme), change)
    keepers.clock.now = NOW + timedelta(days=2)
    await keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(retention_days_agreed=30))
    await keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(display_name="Acme Ltd"))

    assert plans_of(admin, acme) == [
        (NOW, Plan.FREE, 3),
        (NOW + timedelta(days=1), Plan.ENTERPRISE, 365),
        (NOW + timedelta(days=2), Plan.ENTERPRISE, 30),
    ]


async def test_a_plan_changed_on_a_machine_with_a_slow_clock_still_comes_after_the_one_before(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization(an_organization(plan=Plan.FREE))

    keepers.clock.now = NOW - timedelta(seconds=2)
    await keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(plan=Plan.PRO))

    assert plans_of(admin, acme)[-1] == (NOW + timedelta(microseconds=1), Plan.PRO, 90)


async def test_changes_of_different_settings_at_the_same_time_are_all_kept(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = await keepers.organization(an_organization(plan=Plan.FREE))

    await asyncio.gather(
        keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(display_name="Acme Ltd")),
        keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(plan=Plan.PRO)),
        keepers.accounts.update_organization(OPERATOR, str(acme), organization_change(payload_retained=True)),
    )

    organization = await keepers.reader.organization(OPERATOR, str(acme))
    assert (organization.display_name, organization.plan) == ("Acme Ltd", Plan.PRO)
    assert (organization.retention_days, organization.payload_retained) == (90, True)


async def test_an_organization_cannot_give_itself_a_plan(keepers: Keepers) -> None:
    acme = await keepers.organization(an_organization(plan=Plan.FREE))
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(acme))

    with pytest.raises(ForbiddenError):
        await keepers.accounts.update_organization(bearer_of(key), str(acme), organization_change(plan=Plan.PRO))

    assert (await keepers.reader.organization(OPERATOR, str(acme))).plan is Plan.FREE


async def test_a_database_that_is_away_is_no_bug_and_worth_another_try() -> None:
    async with keepers_of("postgresql://nobody@127.0.0.1:1/tollgate") as nobody_listens:
        with pytest.raises(UnavailableError):
            await nobody_listens.accounts.create_organization(OPERATOR, an_organization())
