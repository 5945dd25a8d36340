from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from services.common.authentication import Scope, hash_key
from services.common.database import open_database
from services.common.errors import ForbiddenError, InvalidRequestError
from services.common.key_store import DatabaseKeyDirectory
from services.common.settings import SettingError
from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod
from tests.conftest import Database
from tests.integration.ledger.account_builders import (
    NOW,
    OPERATOR,
    Keepers,
    a_project,
    an_api_key,
    api_key_change,
    bearer_of,
    keepers_of,
)

HOUR = timedelta(hours=1)
FIVE_A_MONTH = SpendingLimit(5 * 10**12, SpendingPeriod.MONTH)


@pytest.fixture
async def keepers(database: Database) -> AsyncIterator[Keepers]:
    async with keepers_of(database.ledger_url) as made:
        yield made


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.admin_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def actions_on_key(admin: psycopg.Connection[dict[str, Any]], api_key_id: UUID) -> list[str]:
    rows = admin.execute(
        "SELECT action FROM ledger.audit_log WHERE subject = %s ORDER BY audit_id", [str(api_key_id)]
    ).fetchall()
    return [row["action"] for row in rows]


def operator_audit(admin: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
    return admin.execute("SELECT action, subject, actor_scope FROM ledger.operator_audit_log").fetchall()


async def test_ending_a_key_twice_is_one_line_in_the_audit_log(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(await keepers.organization()))

    first = await keepers.keys.revoke_api_key(OPERATOR, str(key.api_key_id))
    keepers.clock.now = NOW + timedelta(days=1)
    second = await keepers.keys.revoke_api_key(OPERATOR, str(key.api_key_id))

    assert first.revoke_time == second.revoke_time == NOW
    assert actions_on_key(admin, key.api_key_id) == ["api_key.create", "api_key.revoke"]


async def test_a_key_made_on_a_machine_with_a_fast_clock_can_be_ended(keepers: Keepers) -> None:
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(await keepers.organization()))

    keepers.clock.now = NOW - timedelta(seconds=2)
    revoked = await keepers.keys.revoke_api_key(OPERATOR, str(key.api_key_id))

    assert revoked.revoke_time == key.create_time


async def test_keys_are_stored_as_hashes_only(keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]) -> None:
    key, secret = await keepers.keys.create_api_key(OPERATOR, an_api_key(await keepers.organization()))

    [row] = admin.execute("SELECT * FROM ledger.api_key WHERE api_key_id = %s", [key.api_key_id]).fetchall()

    assert row["key_hash"] == hash_key(secret)
    assert secret not in str(row)


async def test_a_spending_limit_is_kept_to_the_pico_dollar(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    limit = SpendingLimit(8_999_999_000_000_000_001, SpendingPeriod.TOTAL)
    new = an_api_key(await keepers.organization(), spending_limit=limit)
    key, _ = await keepers.keys.create_api_key(OPERATOR, new)

    found = await keepers.reader.api_key(OPERATOR, str(key.api_key_id))
    [row] = admin.execute("SELECT details FROM ledger.audit_log WHERE subject = %s", [str(key.api_key_id)]).fetchall()

    assert found.spending_limit == limit
    assert row["details"]["spending_limit"] == "8999999.000000000001"
    assert row["details"]["spending_period"] == "TOTAL"


async def test_a_change_of_a_key_is_kept_and_audited_with_what_it_replaced(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(await keepers.organization()))

    change = api_key_change(display_name="Nightly", expire_time=NOW + HOUR, spending_limit=FIVE_A_MONTH)
    changed = await keepers.keys.update_api_key(OPERATOR, str(key.api_key_id), change)
    await keepers.keys.update_api_key(OPERATOR, str(key.api_key_id), change)

    assert await keepers.reader.api_key(OPERATOR, str(key.api_key_id)) == changed
    assert (changed.display_name, changed.expire_time, changed.spending_limit) == ("Nightly", NOW + HOUR, FIVE_A_MONTH)
    [row] = admin.execute(
        "SELECT before, details FROM ledger.audit_log WHERE subject = %s AND action = 'api_key.update'",
        [str(key.api_key_id)],
    ).fetchall()
    assert row["before"] == {
        "display_name": "CI",
        "expire_time": None,
        "spending_limit": None,
        "spending_period": None,
    }
    assert row["details"] == {
        "display_name": "Nightly",
        "expire_time": "2026-03-01T13:00:00Z",
        "spending_limit": "5",
        "spending_period": "MONTH",
    }


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        pytest.param(NOW, "must be in the future", id="now"),
        pytest.param(NOW - HOUR, "must be in the future", id="past"),
        pytest.param(NOW + 2 * HOUR, "may only move closer", id="later than before"),
    ],
)
async def test_the_end_of_a_key_only_moves_closer(keepers: Keepers, end: datetime, problem: str) -> None:
    new = an_api_key(await keepers.organization(), expire_time=NOW + HOUR)
    key, _ = await keepers.keys.create_api_key(OPERATOR, new)

    with pytest.raises(InvalidRequestError, match=rf"^expire_time {problem}"):
        await keepers.keys.update_api_key(OPERATOR, str(key.api_key_id), api_key_change(expire_time=end))


@pytest.mark.parametrize("scope", [Scope.OPERATOR, Scope.ORGANIZATION], ids=["an operator's", "an organization's"])
async def test_a_key_that_ends_creates_none_that_outlives_it(keepers: Keepers, scope: Scope) -> None:
    acme = await keepers.organization()
    new = an_api_key("" if scope is Scope.OPERATOR else acme, scope, expire_time=NOW + HOUR)
    ending = bearer_of((await keepers.keys.create_api_key(OPERATOR, new))[0])

    for end in (None, NOW + HOUR + timedelta(microseconds=1)):
        with pytest.raises(ForbiddenError, match="may not end later"):
            await keepers.keys.create_api_key(ending, an_api_key(acme, expire_time=end))
    made, _ = await keepers.keys.create_api_key(ending, an_api_key(acme, expire_time=NOW + HOUR))

    assert made.expire_time == NOW + HOUR


async def test_a_key_with_a_limit_creates_no_key_that_spends_and_lifts_no_limit(keepers: Keepers) -> None:
    acme = await keepers.organization()
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(acme, spending_limit=FIVE_A_MONTH))
    limited = bearer_of(key)

    with pytest.raises(ForbiddenError, match="read-only keys only"):
        await keepers.keys.create_api_key(limited, an_api_key(acme, spending_limit=FIVE_A_MONTH))
    for change in (api_key_change(clear_spending_limit=True), api_key_change(spending_limit=FIVE_A_MONTH)):
        with pytest.raises(ForbiddenError, match="may not change limits"):
            await keepers.keys.update_api_key(limited, str(key.api_key_id), change)
    reading, _ = await keepers.keys.create_api_key(limited, an_api_key(acme, read_only=True))

    assert reading.read_only


async def test_a_limit_is_taken_away_by_saying_so(keepers: Keepers) -> None:
    new = an_api_key(await keepers.organization(), spending_limit=FIVE_A_MONTH)
    key, _ = await keepers.keys.create_api_key(OPERATOR, new)

    renamed = await keepers.keys.update_api_key(OPERATOR, str(key.api_key_id), api_key_change(display_name="x"))
    cleared = await keepers.keys.update_api_key(
        OPERATOR, str(key.api_key_id), api_key_change(clear_spending_limit=True)
    )

    assert renamed.spending_limit == FIVE_A_MONTH
    assert cleared.spending_limit is None


async def test_an_operator_key_has_nothing_to_spend(keepers: Keepers) -> None:
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(scope=Scope.OPERATOR))

    with pytest.raises(InvalidRequestError, match=r"^spending_limit "):
        an_api_key(scope=Scope.OPERATOR, spending_limit=FIVE_A_MONTH)
    with pytest.raises(InvalidRequestError, match=r"^spending_limit "):
        await keepers.keys.update_api_key(OPERATOR, str(key.api_key_id), api_key_change(spending_limit=FIVE_A_MONTH))


async def test_keys_of_a_project_are_listed_apart(keepers: Keepers) -> None:
    acme = await keepers.organization()
    await keepers.accounts.create_project(OPERATOR, a_project(acme))
    await keepers.keys.create_api_key(OPERATOR, an_api_key(acme))
    of_web, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(acme, Scope.PROJECT, project_id="web"))

    page = await keepers.reader.list_api_keys(OPERATOR, str(acme), "web", limit="", page_token="")

    assert page.items == [of_web]


async def test_operator_keys_are_audited_where_no_organization_sees_it(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    key, _ = await keepers.keys.create_api_key(OPERATOR, an_api_key(scope=Scope.OPERATOR))
    await keepers.keys.revoke_api_key(OPERATOR, str(key.api_key_id))

    actions = [entry["action"] for entry in operator_audit(admin) if entry["subject"] == str(key.api_key_id)]

    assert sorted(actions) == ["api_key.create", "api_key.revoke"]


async def test_the_first_operator_key_comes_from_the_environment_and_works(
    keepers: Keepers, database: Database
) -> None:
    await keepers.keys.seed_operator_key("my-first-key")

    engine = open_database(database.ledger_url)
    bearer = await DatabaseKeyDirectory(engine).find(hash_key("my-first-key"))
    await engine.dispose()

    assert bearer is not None
    assert (bearer.scope, bearer.read_only) == (Scope.OPERATOR, False)


async def test_starting_again_adds_nothing_and_changing_the_variable_adds_a_key(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    def seeded() -> list[bytes]:
        rows = admin.execute("SELECT key_hash FROM ledger.api_key WHERE display_name = 'GATEWAY_API_KEY'").fetchall()
        return [row["key_hash"] for row in rows]

    await keepers.keys.seed_operator_key("key-of-monday")
    lines, keys = len(operator_audit(admin)), len(seeded())
    await keepers.keys.seed_operator_key("key-of-monday")
    assert (len(operator_audit(admin)), len(seeded())) == (lines, keys)

    await keepers.keys.seed_operator_key("key-of-tuesday")

    assert {hash_key("key-of-monday"), hash_key("key-of-tuesday")} <= set(seeded())
    assert len(operator_audit(admin)) == lines + 1


async def test_a_seeded_key_that_was_revoked_stays_revoked(
    keepers: Keepers, admin: psycopg.Connection[dict[str, Any]]
) -> None:
    await keepers.keys.seed_operator_key("leaked-key")
    find = "SELECT api_key_id, revoke_time FROM ledger.api_key WHERE key_hash = %s"
    [row] = admin.execute(find, [hash_key("leaked-key")]).fetchall()
    await keepers.keys.revoke_api_key(OPERATOR, str(row["api_key_id"]))
    await keepers.keys.seed_operator_key("leaked-key")

    [row] = admin.execute(find, [hash_key("leaked-key")]).fetchall()

    assert row["revoke_time"] == NOW


@pytest.mark.parametrize("secret", ["two words", "trailing ", "kľúč", "x" * 513, "tab\t"])
async def test_a_seed_that_no_client_could_send_stops_the_start(keepers: Keepers, secret: str) -> None:
    with pytest.raises(SettingError, match=r"^GATEWAY_API_KEY ") as caught:
        await keepers.keys.seed_operator_key(secret)

    assert secret not in str(caught.value)
