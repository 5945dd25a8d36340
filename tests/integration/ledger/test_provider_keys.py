from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest

from services.common.errors import NotFoundError
from services.common.sealed_secrets import SealBrokenError, open_sealed
from tests.conftest import Database
from tests.integration.ledger.account_builders import OPERATOR, Keepers, a_provider_key, keepers_of


@pytest.fixture(scope="module")
async def keepers(database: Database) -> AsyncIterator[Keepers]:
    async with keepers_of(database.ledger_url) as made:
        yield made


async def an_organization_with_key(keepers: Keepers, secret: str) -> UUID:
    organization_id = await keepers.organization()
    await keepers.keys.set_provider_key(OPERATOR, a_provider_key(organization_id, secret=secret))
    return organization_id


def stored(database: Database, organization_id: UUID) -> bytes:
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute(
            "SELECT sealed_secret FROM ledger.provider_key WHERE organization_id = %s", [organization_id]
        ).fetchone()
    assert row is not None
    sealed: bytes = row[0]
    return sealed


async def test_what_is_stored_only_the_router_can_read(keepers: Keepers, database: Database) -> None:
    acme = await an_organization_with_key(keepers, "sk-of-acme")

    sealed = stored(database, acme)

    assert b"sk-of-acme" not in sealed
    opened = open_sealed(sealed, keepers.router_private_key, organization_id=str(acme), provider="openai")
    assert opened == "sk-of-acme"


async def test_a_key_copied_into_another_organizations_row_does_not_open(keepers: Keepers, database: Database) -> None:
    acme = await an_organization_with_key(keepers, "sk-of-acme")
    thief = await an_organization_with_key(keepers, "sk-of-thief")
    with psycopg.connect(database.admin_url) as connection:
        connection.execute(
            "UPDATE ledger.provider_key SET sealed_secret = %s WHERE organization_id = %s",
            [stored(database, acme), thief],
        )

    with pytest.raises(SealBrokenError):
        open_sealed(stored(database, thief), keepers.router_private_key, organization_id=str(thief), provider="openai")


async def test_a_key_that_is_deleted_leaves_nothing_behind(keepers: Keepers, database: Database) -> None:
    acme = await an_organization_with_key(keepers, "sk-of-acme")

    await keepers.keys.delete_provider_key(OPERATOR, str(acme), "openai")

    with psycopg.connect(database.admin_url) as connection:
        rows = connection.execute("SELECT FROM ledger.provider_key WHERE organization_id = %s", [acme]).fetchall()
    assert rows == []
    with pytest.raises(NotFoundError):
        await keepers.keys.delete_provider_key(OPERATOR, str(acme), "openai")
