from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.ledger.v1.account_service_pb2 import (
    DeleteProviderKeyRequest,
    ListProviderKeysRequest,
    SetProviderKeyRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_OWN_KEYS, ResolveKeyRequest

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
MISSING, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def set_key(ledger: Ledger, organization_id: str, provider: str) -> None:
    request = SetProviderKeyRequest(organization_id=organization_id, provider=provider, secret="sk-very-private")
    await ledger.accounts.SetProviderKey(request, metadata=OPERATOR)


async def providers(ledger: Ledger, metadata: Any, **fields: str) -> list[str]:
    request = ListProviderKeysRequest(**fields)
    answer = await ledger.accounts.ListProviderKeys(request, metadata=metadata)
    assert "sk-very-private" not in str(answer)
    return [key.provider for key in answer.provider_keys]


async def test_own_provider_keys_are_listed_the_one_set_last_first_and_never_shown(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    own = bearer((await ledger.key(acme, read_only=True)).secret)
    for provider in ("openai", "anthropic", "gemini", "openai"):
        await set_key(ledger, acme, provider)
    await set_key(ledger, globex, "groq")

    assert await providers(ledger, own) == ["openai", "gemini", "anthropic"]
    assert await providers(ledger, OPERATOR, organization_id=acme) == ["openai", "gemini", "anthropic"]


async def test_they_are_listed_page_by_page(ledger: Ledger) -> None:
    acme = await ledger.organization()
    for provider in ("openai", "anthropic", "gemini"):
        await set_key(ledger, acme, provider)

    first = await ledger.accounts.ListProviderKeys(
        ListProviderKeysRequest(organization_id=acme, limit="2"), metadata=OPERATOR
    )
    rest = await providers(ledger, OPERATOR, organization_id=acme, limit="2", page_token=first.next_page_token)

    assert [key.provider for key in first.provider_keys] + rest == ["gemini", "anthropic", "openai"]


async def test_a_deleted_key_is_no_longer_sent_to_the_router(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme, mode=PROJECT_MODE_OWN_KEYS))
    own = bearer((await ledger.key(acme)).secret)
    await set_key(ledger, acme, "openai")

    await ledger.accounts.DeleteProviderKey(DeleteProviderKeyRequest(provider="openai"), metadata=own)
    resolved = await ledger.directory.ResolveKey(ResolveKeyRequest(key_hash=hash_key(key.secret)), metadata=INSIDE)

    assert list(resolved.provider_keys) == []
    assert await providers(ledger, own) == []


@pytest.mark.parametrize("provider", ["openai", "a b", "", "x" * 100_000])
async def test_a_key_that_is_not_there_cannot_be_deleted(ledger: Ledger, provider: str) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await set_key(ledger, globex, "openai")
    own = bearer((await ledger.key(acme)).secret)

    for request, metadata in (
        (DeleteProviderKeyRequest(provider=provider), own),
        (DeleteProviderKeyRequest(provider=provider, organization_id=UNKNOWN), OPERATOR),
    ):
        refusal = await refusal_of(ledger.accounts.DeleteProviderKey(request, metadata=metadata))
        assert (refusal.code, refusal.reason) == (MISSING, "NOT_FOUND")
    assert await providers(ledger, OPERATOR, organization_id=globex) == ["openai"]


async def test_a_key_that_was_deleted_can_be_set_again(ledger: Ledger) -> None:
    acme = await ledger.organization()
    for _ in range(2):
        await set_key(ledger, acme, "openai")
        request = DeleteProviderKeyRequest(provider="openai", organization_id=acme)
        await ledger.accounts.DeleteProviderKey(request, metadata=OPERATOR)

    assert await providers(ledger, OPERATOR, organization_id=acme) == []


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, INVALID, "organization_id"),
        ({"organization_id": "acme"}, INVALID, "organization_id"),
        ({"organization_id": UNKNOWN, "limit": "0"}, INVALID, "limit"),
        ({"organization_id": UNKNOWN, "page_token": "?"}, INVALID, "page_token"),
        ({"organization_id": UNKNOWN}, MISSING, None),
    ],
)
async def test_a_list_that_cannot_be_is_refused(
    ledger: Ledger, fields: dict[str, str], code: grpc.StatusCode, field: str | None
) -> None:
    request = ListProviderKeysRequest(**fields)
    refusal = await refusal_of(ledger.accounts.ListProviderKeys(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata.get("field")) == (code, field)
