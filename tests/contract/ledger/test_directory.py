import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import hash_key
from services.common.sealed_secrets import open_sealed
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, Metadata, refusal_of, running_ledger
from tollgate.access.v1.access_pb2 import SCOPE_OPERATOR, SCOPE_ORGANIZATION, SCOPE_PROJECT
from tollgate.ledger.v1.account_service_pb2 import RevokeApiKeyRequest, SetProviderKeyRequest
from tollgate.ledger.v1.directory_service_pb2 import (
    PROJECT_MODE_CREDITS,
    PROJECT_MODE_HYBRID,
    PROJECT_MODE_OWN_KEYS,
    PROJECT_MODE_UNSPECIFIED,
    ProjectMode,
    ResolveKeyRequest,
    ResolveKeyResponse,
)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


def request_for(secret: str, project_id: str = "") -> ResolveKeyRequest:
    return ResolveKeyRequest(key_hash=hash_key(secret), project_id=project_id)


async def resolve(ledger: Ledger, secret: str, project_id: str = "") -> ResolveKeyResponse:
    answer: ResolveKeyResponse = await ledger.directory.ResolveKey(request_for(secret, project_id), metadata=INSIDE)
    return answer


async def set_provider_key(ledger: Ledger, organization_id: str, provider: str, secret: str) -> None:
    request = SetProviderKeyRequest(organization_id=organization_id, provider=provider, secret=secret)
    await ledger.accounts.SetProviderKey(request, metadata=OPERATOR)


async def test_a_project_key_calls_for_its_project_whatever_it_names(ledger: Ledger) -> None:
    acme = await ledger.organization(payload_retained=True)
    await ledger.project(acme, "other")
    key = await ledger.key(acme, project_id=await ledger.project(acme, "web"))

    for named in ("", "web", "other", "nowhere"):
        answer = await resolve(ledger, key.secret, named)

        assert (answer.scope, answer.organization_id, answer.project_id) == (SCOPE_PROJECT, acme, "web")
        assert answer.api_key_id == key.api_key.api_key_id
        assert answer.project_mode == PROJECT_MODE_CREDITS
        assert answer.payload_retained


async def test_an_organization_key_calls_for_the_project_it_names(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, "web", mode=PROJECT_MODE_HYBRID)
    key = await ledger.key(acme)

    named, unnamed = await resolve(ledger, key.secret, "web"), await resolve(ledger, key.secret)

    assert (named.scope, named.project_id, named.project_mode) == (SCOPE_ORGANIZATION, "web", PROJECT_MODE_HYBRID)
    assert (unnamed.organization_id, unnamed.project_id) == (acme, "")
    assert unnamed.project_mode == PROJECT_MODE_UNSPECIFIED


async def test_a_project_that_does_not_exist_is_named_in_the_refusal(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(globex, "theirs")
    key = await ledger.key(acme)

    for named in ("wbe", "theirs"):
        refusal = await refusal_of(ledger.directory.ResolveKey(request_for(key.secret, named), metadata=INSIDE))

        assert (refusal.code, refusal.message) == (grpc.StatusCode.NOT_FOUND, f"There is no project {named}.")


@pytest.mark.parametrize("named", ["a b", "x" * 65, "nul\0"])
async def test_a_name_that_no_project_can_have_is_a_broken_field(ledger: Ledger, named: str) -> None:
    key = await ledger.key(await ledger.organization())

    refusal = await refusal_of(ledger.directory.ResolveKey(request_for(key.secret, named), metadata=INSIDE))

    assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": "project_id"})


async def test_an_operator_key_has_no_organization_and_no_project(ledger: Ledger) -> None:
    key = await ledger.key("", scope=SCOPE_OPERATOR, read_only=True)

    answer = await resolve(ledger, key.secret, "web")

    assert (answer.scope, answer.organization_id, answer.project_id) == (SCOPE_OPERATOR, "", "")
    assert answer.read_only
    assert not answer.credit_available


@pytest.mark.parametrize(
    ("mode", "providers"),
    [
        pytest.param(PROJECT_MODE_CREDITS, [], id="credits only: none leave the ledger"),
        pytest.param(PROJECT_MODE_OWN_KEYS, ["anthropic", "openai"], id="own keys only: all"),
        pytest.param(PROJECT_MODE_HYBRID, ["anthropic", "openai"], id="hybrid: all"),
    ],
)
async def test_own_provider_keys_are_sent_where_the_project_uses_them(
    ledger: Ledger, mode: ProjectMode.ValueType, providers: list[str]
) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme, mode=mode))
    await set_provider_key(ledger, acme, "openai", "sk-acme-openai")
    await set_provider_key(ledger, acme, "anthropic", "sk-acme-anthropic")
    await set_provider_key(ledger, globex, "gemini", "sk-globex-gemini")

    answer = await resolve(ledger, key.secret)

    assert [sealed.provider for sealed in answer.provider_keys] == providers
    for sealed in answer.provider_keys:
        opened = open_sealed(
            sealed.sealed_secret, ledger.router_private_key, organization_id=acme, provider=sealed.provider
        )
        assert opened == f"sk-acme-{sealed.provider}"


async def test_a_provider_key_set_again_replaces_the_earlier_one(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme, mode=PROJECT_MODE_OWN_KEYS))
    await set_provider_key(ledger, acme, "openai", "sk-old")
    await set_provider_key(ledger, acme, "openai", "sk-new")

    [sealed] = (await resolve(ledger, key.secret)).provider_keys

    opened = open_sealed(sealed.sealed_secret, ledger.router_private_key, organization_id=acme, provider="openai")
    assert opened == "sk-new"


async def test_the_answer_says_whether_the_organization_has_credit_left(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme)

    without = await resolve(ledger, key.secret)
    ledger.in_credit.add(UUID(acme))
    with_credit = await resolve(ledger, key.secret)

    assert (without.credit_available, with_credit.credit_available) == (False, True)


async def test_an_unknown_key_is_not_resolved(ledger: Ledger) -> None:
    for key_hash in (hash_key("tg_unknown"), b"", b"short"):
        refusal = await refusal_of(ledger.directory.ResolveKey(ResolveKeyRequest(key_hash=key_hash), metadata=INSIDE))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_a_revoked_key_is_not_resolved_from_that_moment_on(ledger: Ledger) -> None:
    key = await ledger.key(await ledger.organization())
    await resolve(ledger, key.secret)

    request = RevokeApiKeyRequest(api_key_id=key.api_key.api_key_id)
    await ledger.accounts.RevokeApiKey(request, metadata=OPERATOR)
    refusal = await refusal_of(ledger.directory.ResolveKey(request_for(key.secret), metadata=INSIDE))

    assert refusal.reason == "INVALID_API_KEY"


async def test_a_key_is_resolved_until_it_expires_and_the_answer_says_when(ledger: Ledger) -> None:
    expire_time = Timestamp()
    expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    key = await ledger.key(await ledger.organization(), expire_time=expire_time)

    answer = await resolve(ledger, key.secret)
    await asyncio.sleep(1.1)
    refusal = await refusal_of(ledger.directory.ResolveKey(request_for(key.secret), metadata=INSIDE))

    assert answer.expire_time == expire_time
    assert refusal.reason == "INVALID_API_KEY"


async def test_only_our_services_may_ask(ledger: Ledger) -> None:
    key = await ledger.key(await ledger.organization())
    strangers: list[tuple[Metadata, grpc.StatusCode]] = [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (OPERATOR, grpc.StatusCode.PERMISSION_DENIED),
    ]

    for metadata, code in strangers:
        refusal = await refusal_of(ledger.directory.ResolveKey(request_for(key.secret), metadata=metadata))
        assert refusal.code == code
