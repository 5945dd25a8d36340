from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.access.v1.access_pb2 import SCOPE_OPERATOR, SCOPE_ORGANIZATION, SCOPE_PROJECT, SCOPE_SERVICE
from tollgate.ledger.v1.account_service_pb2 import (
    PLAN_ENTERPRISE,
    PLAN_FREE,
    PLAN_PRO,
    CreateApiKeyRequest,
    CreateOrganizationRequest,
    CreateProjectRequest,
    RevokeApiKeyRequest,
    SetProviderKeyRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_CREDITS, PROJECT_MODE_HYBRID, ResolveKeyRequest

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


def changes(organization_id: str, api_key_id: str = UNKNOWN) -> list[tuple[str, Any]]:
    """Every change that a key of an organization may make, aimed at one organization."""
    return [
        ("CreateProject", CreateProjectRequest(organization_id=organization_id, project_id="new")),
        ("CreateApiKey", CreateApiKeyRequest(organization_id=organization_id)),
        ("SetProviderKey", SetProviderKeyRequest(organization_id=organization_id, provider="openai", secret="sk")),
        ("RevokeApiKey", RevokeApiKeyRequest(api_key_id=api_key_id)),
    ]


async def test_an_organization_is_free_unless_it_says_otherwise(ledger: Ledger) -> None:
    before = datetime.now(UTC)

    request = CreateOrganizationRequest(display_name="Acme")
    organization = (await ledger.accounts.CreateOrganization(request, metadata=OPERATOR)).organization

    assert UUID(organization.organization_id).version == 7
    assert (organization.display_name, organization.plan, organization.retention_days) == ("Acme", PLAN_FREE, 3)
    assert organization.payload_retained is False
    assert before <= organization.create_time.ToDatetime(UTC) <= datetime.now(UTC)


@pytest.mark.parametrize(("plan", "agreed", "kept"), [(PLAN_PRO, 0, 90), (PLAN_ENTERPRISE, 200, 200)])
async def test_an_organization_keeps_records_as_its_plan_says(
    ledger: Ledger, plan: Any, agreed: int, kept: int
) -> None:
    request = CreateOrganizationRequest(display_name="Acme", plan=plan, retention_days=agreed, payload_retained=True)
    organization = (await ledger.accounts.CreateOrganization(request, metadata=OPERATOR)).organization

    assert (organization.plan, organization.retention_days, organization.payload_retained) == (plan, kept, True)


async def test_a_broken_field_is_named(ledger: Ledger) -> None:
    request = CreateOrganizationRequest(display_name="Acme", plan=PLAN_ENTERPRISE)
    refusal = await refusal_of(ledger.accounts.CreateOrganization(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": "retention_days"})


async def test_only_operators_create_organizations(ledger: Ledger) -> None:
    key = await ledger.key(await ledger.organization())

    request = CreateOrganizationRequest(display_name="Mine")
    refusal = await refusal_of(ledger.accounts.CreateOrganization(request, metadata=bearer(key.secret)))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")


async def test_a_project_is_created_once(ledger: Ledger) -> None:
    acme = await ledger.organization()
    request = CreateProjectRequest(organization_id=acme, project_id="web", mode=PROJECT_MODE_HYBRID)

    project = (await ledger.accounts.CreateProject(request, metadata=OPERATOR)).project
    refusal = await refusal_of(ledger.accounts.CreateProject(request, metadata=OPERATOR))

    assert (project.organization_id, project.project_id, project.mode) == (acme, "web", PROJECT_MODE_HYBRID)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert refusal.message == "Project web exists already; choose another id."


async def test_two_organizations_may_have_projects_of_one_name(ledger: Ledger) -> None:
    for organization_id in (await ledger.organization(), await ledger.organization()):
        request = CreateProjectRequest(organization_id=organization_id, project_id="web")
        project = (await ledger.accounts.CreateProject(request, metadata=OPERATOR)).project

        assert (project.organization_id, project.mode) == (organization_id, PROJECT_MODE_CREDITS)


async def test_an_organization_key_need_not_name_its_organization(ledger: Ledger) -> None:
    acme = await ledger.organization()
    own = bearer((await ledger.key(acme)).secret)

    project = (await ledger.accounts.CreateProject(CreateProjectRequest(project_id="web"), metadata=own)).project
    key = (await ledger.accounts.CreateApiKey(CreateApiKeyRequest(project_id="web"), metadata=own)).api_key
    set_key = await ledger.accounts.SetProviderKey(SetProviderKeyRequest(provider="openai", secret="sk"), metadata=own)

    assert {project.organization_id, key.organization_id, set_key.organization_id} == {acme}
    assert (key.scope, key.project_id) == (SCOPE_PROJECT, "web")


async def test_an_operator_must_name_the_organization(ledger: Ledger) -> None:
    for method, request in changes("")[:3]:
        refusal = await refusal_of(getattr(ledger.accounts, method)(request, metadata=OPERATOR))

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": "organization_id"}), method


@pytest.mark.parametrize(
    ("organization_id", "code"), [(UNKNOWN, MISSING), ("acme", INVALID), ("{" + UNKNOWN + "}", INVALID)]
)
async def test_an_operator_who_names_no_organization_of_ours_is_told(
    ledger: Ledger, organization_id: str, code: grpc.StatusCode
) -> None:
    for method, request in changes(organization_id)[:3]:
        refusal = await refusal_of(getattr(ledger.accounts, method)(request, metadata=OPERATOR))

        assert refusal.code == code, method


async def test_a_key_is_shown_once_and_works_at_once(ledger: Ledger) -> None:
    acme = await ledger.organization()

    created = await ledger.key(acme, display_name="CI", read_only=True)

    assert created.secret.startswith("tg_")
    assert len(created.secret) == 46
    assert created.secret not in str(created.api_key)
    assert (created.api_key.scope, created.api_key.display_name) == (SCOPE_ORGANIZATION, "CI")
    assert created.api_key.read_only
    assert not created.api_key.HasField("expire_time")
    assert not created.api_key.HasField("revoke_time")
    resolved = await ledger.directory.ResolveKey(ResolveKeyRequest(key_hash=hash_key(created.secret)), metadata=INSIDE)
    assert resolved.api_key_id == created.api_key.api_key_id


async def test_a_key_for_a_project_that_does_not_exist_is_refused(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(globex, "theirs")

    for project_id in ("nowhere", "theirs"):
        request = CreateApiKeyRequest(organization_id=acme, project_id=project_id)
        refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=OPERATOR))

        assert (refusal.code, refusal.message) == (MISSING, f"There is no project {project_id}.")


async def test_a_key_that_has_ended_already_is_refused(ledger: Ledger) -> None:
    expire_time = Timestamp()
    expire_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=1))
    request = CreateApiKeyRequest(organization_id=await ledger.organization(), expire_time=expire_time)

    refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata) == (INVALID, {"field": "expire_time"})


async def test_operators_make_operator_keys_and_nobody_else_does(ledger: Ledger) -> None:
    own = bearer((await ledger.key(await ledger.organization())).secret)

    request = CreateApiKeyRequest(scope=SCOPE_OPERATOR)
    made = await ledger.accounts.CreateApiKey(request, metadata=OPERATOR)
    refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=own))

    assert (made.api_key.scope, made.api_key.organization_id) == (SCOPE_OPERATOR, "")
    await ledger.accounts.CreateOrganization(
        CreateOrganizationRequest(display_name="Made with it"), metadata=bearer(made.secret)
    )
    assert (refusal.code, refusal.metadata) == (DENIED, {"scope": "operator"})


async def test_nobody_makes_keys_for_services(ledger: Ledger) -> None:
    own = bearer((await ledger.key(await ledger.organization())).secret)

    for metadata in (OPERATOR, own):
        request = CreateApiKeyRequest(scope=SCOPE_SERVICE)
        refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=metadata))

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": "scope"})


async def test_a_project_key_changes_nothing(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme))

    for method, request in changes("", key.api_key.api_key_id):
        refusal = await refusal_of(getattr(ledger.accounts, method)(request, metadata=bearer(key.secret)))

        assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED"), method


async def test_a_read_only_key_changes_nothing(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, read_only=True)
    operator = await ledger.key("", scope=SCOPE_OPERATOR, read_only=True)

    for method, request in changes("", key.api_key.api_key_id):
        refusal = await refusal_of(getattr(ledger.accounts, method)(request, metadata=bearer(key.secret)))
        assert (refusal.code, refusal.reason) == (DENIED, "READ_ONLY_KEY"), method
    request = CreateOrganizationRequest(display_name="Mine")
    refusal = await refusal_of(ledger.accounts.CreateOrganization(request, metadata=bearer(operator.secret)))
    assert (refusal.code, refusal.reason) == (DENIED, "READ_ONLY_KEY")


async def test_a_foreign_organization_is_refused_in_the_same_words_whether_it_exists_or_not(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    own = bearer((await ledger.key(acme)).secret)

    for (method, foreign), (_, unknown) in zip(changes(globex)[:3], changes(UNKNOWN)[:3], strict=True):
        refused = await refusal_of(getattr(ledger.accounts, method)(foreign, metadata=own))
        absent = await refusal_of(getattr(ledger.accounts, method)(unknown, metadata=own))

        assert (refused.code, refused.reason) == (DENIED, "PERMISSION_DENIED"), method
        assert absent.code == DENIED
        assert refused.message.replace(globex, "") == absent.message.replace(UNKNOWN, ""), method


async def test_a_foreign_key_is_as_absent_as_one_that_does_not_exist(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    own = bearer((await ledger.key(acme)).secret)
    theirs = (await ledger.key(globex)).api_key.api_key_id
    operators = (await ledger.key("", scope=SCOPE_OPERATOR)).api_key.api_key_id

    for api_key_id in (theirs, operators, UNKNOWN):
        request = RevokeApiKeyRequest(api_key_id=api_key_id)
        refusal = await refusal_of(ledger.accounts.RevokeApiKey(request, metadata=own))

        assert (refusal.code, refusal.message) == (MISSING, f"There is no API key {api_key_id}.")


@pytest.mark.parametrize("api_key_id", ["", "abc", "x" * 100_000])
async def test_an_id_that_no_key_can_have_is_not_found(ledger: Ledger, api_key_id: str) -> None:
    request = RevokeApiKeyRequest(api_key_id=api_key_id)
    refusal = await refusal_of(ledger.accounts.RevokeApiKey(request, metadata=OPERATOR))

    assert refusal.code == MISSING


async def test_a_revoked_key_is_refused_at_once(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme)
    await ledger.accounts.CreateProject(CreateProjectRequest(project_id="one"), metadata=bearer(key.secret))

    request = RevokeApiKeyRequest(api_key_id=key.api_key.api_key_id)
    revoked = (await ledger.accounts.RevokeApiKey(request, metadata=OPERATOR)).api_key
    again = CreateProjectRequest(project_id="two")
    refusal = await refusal_of(ledger.accounts.CreateProject(again, metadata=bearer(key.secret)))

    assert revoked.HasField("revoke_time")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_revoking_twice_changes_nothing(ledger: Ledger) -> None:
    key = await ledger.key(await ledger.organization())
    request = RevokeApiKeyRequest(api_key_id=key.api_key.api_key_id)

    first = await ledger.accounts.RevokeApiKey(request, metadata=OPERATOR)
    second = await ledger.accounts.RevokeApiKey(request, metadata=OPERATOR)

    assert second == first


async def test_an_organization_revokes_its_own_keys(ledger: Ledger) -> None:
    acme = await ledger.organization()
    own, old = await ledger.key(acme), await ledger.key(acme)

    request = RevokeApiKeyRequest(api_key_id=old.api_key.api_key_id)
    revoked = (await ledger.accounts.RevokeApiKey(request, metadata=bearer(own.secret))).api_key

    assert revoked.api_key_id == old.api_key.api_key_id
    assert revoked.HasField("revoke_time")


async def test_a_call_without_a_key_is_refused_before_its_fields_are_looked_at(ledger: Ledger) -> None:
    refusal = await refusal_of(ledger.accounts.CreateOrganization(CreateOrganizationRequest(), metadata=()))

    assert refusal.code == grpc.StatusCode.UNAUTHENTICATED
