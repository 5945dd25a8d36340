from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from psycopg.rows import dict_row

from services.common.authentication import Caller, Scope, hash_key
from services.common.database import open_database
from services.common.errors import UnavailableError
from services.common.key_store import DatabaseKeyDirectory
from services.common.settings import SettingError
from services.common.uuid7 import new_uuid7
from services.ledger.account_keeping import AccountKeeper
from services.ledger.accounts import NewApiKey, NewOrganization, NewProject, NewProviderKey, Plan, ProjectMode
from tests.conftest import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATOR = Caller(scope=Scope.OPERATOR, api_key_id="0199a000-0000-7000-8000-000000000009")
_numbers = count(1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def keeper_of(database_url: str, clock: Clock) -> AsyncIterator[AccountKeeper]:
    engine = open_database(database_url)
    yield AccountKeeper(
        engine,
        X25519PrivateKey.generate().public_key(),
        clock=clock,
        new_id=new_uuid7,
        new_secret=lambda: f"tg_{next(_numbers)}",
    )
    await engine.dispose()


@pytest.fixture
async def keeper(database: Database, clock: Clock) -> AsyncIterator[AccountKeeper]:
    async with keeper_of(database.ledger_url, clock) as made:
        yield made


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.admin_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def audit_of(admin: psycopg.Connection[dict[str, Any]], organization_id: UUID) -> list[dict[str, Any]]:
    return admin.execute(
        "SELECT actor_scope, actor_api_key_id, action, subject, details, create_time FROM ledger.audit_log"
        " WHERE organization_id = %s ORDER BY audit_id",
        [organization_id],
    ).fetchall()


def operator_audit(admin: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
    return admin.execute("SELECT action, subject, actor_scope FROM ledger.operator_audit_log").fetchall()


def an_organization(display_name: str = "Acme") -> NewOrganization:
    return NewOrganization(display_name=display_name, plan=Plan.PRO, retention_days_agreed=None, payload_retained=False)


def an_api_key(organization_id: UUID | str = "", scope: Scope = Scope.ORGANIZATION) -> NewApiKey:
    return NewApiKey(
        scope=scope,
        organization_id=str(organization_id),
        project_id=None,
        display_name="CI",
        read_only=False,
        expire_time=None,
    )


async def test_every_change_is_in_the_audit_log_with_who_made_it_and_when(
    keeper: AccountKeeper, clock: Clock, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = (await keeper.create_organization(OPERATOR, an_organization())).organization_id
    key, secret = await keeper.create_api_key(OPERATOR, an_api_key(acme))
    own = Caller(scope=Scope.ORGANIZATION, organization_id=str(acme), api_key_id=str(key.api_key_id))
    clock.now = NOW + timedelta(hours=1)
    await keeper.create_project(own, NewProject(organization_id="", project_id="web", mode=ProjectMode.HYBRID))
    await keeper.set_provider_key(own, NewProviderKey(organization_id="", provider="openai", secret="sk-private"))
    await keeper.revoke_api_key(own, str(key.api_key_id))

    entries = audit_of(admin, acme)

    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("organization.create", str(acme)),
        ("api_key.create", str(key.api_key_id)),
        ("project.create", "web"),
        ("provider_key.set", "openai"),
        ("api_key.revoke", str(key.api_key_id)),
    ]
    assert [str(entry["actor_api_key_id"]) for entry in entries] == [OPERATOR.api_key_id] * 2 + [own.api_key_id] * 3
    assert [entry["actor_scope"] for entry in entries] == [Scope.OPERATOR] * 2 + [Scope.ORGANIZATION] * 3
    assert [entry["create_time"] for entry in entries] == [NOW] * 2 + [clock.now] * 3
    assert entries[0]["details"]["retention_days"] == 90
    assert entries[2]["details"] == {"mode": "HYBRID"}
    assert secret not in str(entries)
    assert "sk-private" not in str(entries)


async def test_a_change_that_cannot_be_audited_does_not_happen(
    keeper: AccountKeeper, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    admin.execute("REVOKE INSERT ON ledger.audit_log FROM tollgate_ledger")
    try:
        with pytest.raises(Exception, match="permission denied for table audit_log"):
            await keeper.create_organization(OPERATOR, an_organization("Unaudited"))
    finally:
        admin.execute("GRANT INSERT ON ledger.audit_log TO tollgate_ledger")

    found = admin.execute("SELECT FROM ledger.organization WHERE display_name = 'Unaudited'").fetchall()
    assert found == []


async def test_ending_a_key_twice_is_one_line_in_the_audit_log(
    keeper: AccountKeeper, clock: Clock, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    acme = (await keeper.create_organization(OPERATOR, an_organization())).organization_id
    key, _ = await keeper.create_api_key(OPERATOR, an_api_key(acme))

    first = await keeper.revoke_api_key(OPERATOR, str(key.api_key_id))
    clock.now = NOW + timedelta(days=1)
    second = await keeper.revoke_api_key(OPERATOR, str(key.api_key_id))

    assert first.revoke_time == second.revoke_time == NOW
    assert [entry["action"] for entry in audit_of(admin, acme)].count("api_key.revoke") == 1


async def test_a_key_made_on_a_machine_with_a_fast_clock_can_be_ended(keeper: AccountKeeper, clock: Clock) -> None:
    acme = (await keeper.create_organization(OPERATOR, an_organization())).organization_id
    key, _ = await keeper.create_api_key(OPERATOR, an_api_key(acme))

    clock.now = NOW - timedelta(seconds=2)
    revoked = await keeper.revoke_api_key(OPERATOR, str(key.api_key_id))

    assert revoked.revoke_time == key.create_time


async def test_keys_are_stored_as_hashes_only(keeper: AccountKeeper, admin: psycopg.Connection[dict[str, Any]]) -> None:
    acme = (await keeper.create_organization(OPERATOR, an_organization())).organization_id
    key, secret = await keeper.create_api_key(OPERATOR, an_api_key(acme))

    [row] = admin.execute("SELECT * FROM ledger.api_key WHERE api_key_id = %s", [key.api_key_id]).fetchall()

    assert row["key_hash"] == hash_key(secret)
    assert secret not in str(row)


async def test_operator_keys_are_audited_where_no_organization_sees_it(
    keeper: AccountKeeper, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    key, _ = await keeper.create_api_key(OPERATOR, an_api_key(scope=Scope.OPERATOR))
    await keeper.revoke_api_key(OPERATOR, str(key.api_key_id))

    actions = [entry["action"] for entry in operator_audit(admin) if entry["subject"] == str(key.api_key_id)]

    assert sorted(actions) == ["api_key.create", "api_key.revoke"]


async def test_the_first_operator_key_comes_from_the_environment_and_works(
    keeper: AccountKeeper, database: Database
) -> None:
    await keeper.seed_operator_key("my-first-key")

    engine = open_database(database.ledger_url)
    bearer = await DatabaseKeyDirectory(engine).find(hash_key("my-first-key"))
    await engine.dispose()

    assert bearer is not None
    assert (bearer.scope, bearer.read_only) == (Scope.OPERATOR, False)


async def test_starting_again_adds_nothing_and_changing_the_variable_adds_a_key(
    keeper: AccountKeeper, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    def seeded() -> list[bytes]:
        rows = admin.execute("SELECT key_hash FROM ledger.api_key WHERE display_name = 'GATEWAY_API_KEY'").fetchall()
        return [row["key_hash"] for row in rows]

    await keeper.seed_operator_key("key-of-monday")
    lines, keys = len(operator_audit(admin)), len(seeded())
    await keeper.seed_operator_key("key-of-monday")
    assert (len(operator_audit(admin)), len(seeded())) == (lines, keys)

    await keeper.seed_operator_key("key-of-tuesday")

    assert {hash_key("key-of-monday"), hash_key("key-of-tuesday")} <= set(seeded())
    assert len(operator_audit(admin)) == lines + 1


async def test_a_seeded_key_that_was_revoked_stays_revoked(
    keeper: AccountKeeper, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    await keeper.seed_operator_key("leaked-key")
    [row] = admin.execute(
        "SELECT api_key_id FROM ledger.api_key WHERE key_hash = %s", [hash_key("leaked-key")]
    ).fetchall()
    await keeper.revoke_api_key(OPERATOR, str(row["api_key_id"]))
    await keeper.seed_operator_key("leaked-key")

    rows = admin.execute(
        "SELECT revoke_time FROM ledger.api_key WHERE key_hash = %s", [hash_key("leaked-key")]
    ).fetchall()

    assert rows == [{"revoke_time": NOW}]


@pytest.mark.parametrize("secret", ["two words", "trailing ", "kľúč", "x" * 513, "tab\t"])
async def test_a_seed_that_no_client_could_send_stops_the_start(keeper: AccountKeeper, secret: str) -> None:
    with pytest.raises(SettingError, match=r"^GATEWAY_API_KEY ") as caught:
        await keeper.seed_operator_key(secret)

    assert secret not in str(caught.value)


async def test_a_database_that_is_away_is_no_bug_and_worth_another_try(clock: Clock) -> None:
    async with keeper_of("postgresql://nobody@127.0.0.1:1/tollgate", clock) as nobody_listens:
        with pytest.raises(UnavailableError):
            await nobody_listens.create_organization(OPERATOR, an_organization())
