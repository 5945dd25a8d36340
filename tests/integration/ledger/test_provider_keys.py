from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.common.authentication import Caller, Scope
from services.common.database import open_database
from services.common.sealed_secrets import SealBrokenError, open_sealed
from services.common.uuid7 import new_uuid7
from services.ledger.account_keeping import AccountKeeper
from services.ledger.accounts import NewOrganization, NewProviderKey, Plan, new_api_key_secret
from tests.conftest import Database

OPERATOR = Caller(scope=Scope.OPERATOR)
ROUTER_KEY = X25519PrivateKey.generate()


@pytest.fixture(scope="module")
async def keeper(database: Database) -> AsyncIterator[AccountKeeper]:
    engine = open_database(database.ledger_url)
    yield AccountKeeper(
        engine,
        ROUTER_KEY.public_key(),
        clock=lambda: datetime.now(UTC),
        new_id=new_uuid7,
        new_secret=new_api_key_secret,
    )
    await engine.dispose()


async def an_organization_with_key(keeper: AccountKeeper, secret: str) -> str:
    new = NewOrganization(display_name="Acme", plan=Plan.FREE, retention_days_agreed=None, payload_retained=False)
    organization_id = str((await keeper.create_organization(OPERATOR, new)).organization_id)
    key = NewProviderKey(organization_id=organization_id, provider="openai", secret=secret)
    await keeper.set_provider_key(OPERATOR, key)
    return organization_id


def stored(database: Database, organization_id: str) -> bytes:
    with psycopg.connect(database.admin_url) as connection:
        row = connection.execute(
            "SELECT sealed_secret FROM ledger.provider_key WHERE organization_id = %s", [organization_id]
        ).fetchone()
    assert row is not None
    sealed: bytes = row[0]
    return sealed


async def test_what_is_stored_only_the_router_can_read(keeper: AccountKeeper, database: Database) -> None:
    acme = await an_organization_with_key(keeper, "sk-of-acme")

    sealed = stored(database, acme)

    assert b"sk-of-acme" not in sealed
    assert open_sealed(sealed, ROUTER_KEY, organization_id=acme, provider="openai") == "sk-of-acme"


async def test_a_key_copied_into_another_organizations_row_does_not_open(
    keeper: AccountKeeper, database: Database
) -> None:
    acme = await an_organization_with_key(keeper, "sk-of-acme")
    thief = await an_organization_with_key(keeper, "sk-of-thief")
    with psycopg.connect(database.admin_url) as connection:
        connection.execute(
            "UPDATE ledger.provider_key SET sealed_secret = %s WHERE organization_id = %s",
            [stored(database, acme), thief],
        )

    with pytest.raises(SealBrokenError):
        open_sealed(stored(database, thief), ROUTER_KEY, organization_id=thief, provider="openai")
