from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.ledger.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    GetProjectRequest,
    ListProjectsRequest,
    Project,
    UpdateProjectRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import (
    PROJECT_MODE_CREDITS,
    PROJECT_MODE_HYBRID,
    PROJECT_MODE_OWN_KEYS,
    PROJECT_MODE_UNSPECIFIED,
    ResolveKeyRequest,
)

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def get(ledger: Ledger, organization_id: str, project_id: str, metadata: Any = OPERATOR) -> Project:
    request = GetProjectRequest(organization_id=organization_id, project_id=project_id)
    answer: Project = (await ledger.accounts.GetProject(request, metadata=metadata)).project
    return answer


async def update(
    ledger: Ledger, organization_id: str, project_id: str, metadata: Any = OPERATOR, **settings: Any
) -> Project:
    request = UpdateProjectRequest(organization_id=organization_id, project_id=project_id, **settings)
    answer: Project = (await ledger.accounts.UpdateProject(request, metadata=metadata)).project
    return answer


async def names(ledger: Ledger, metadata: Any, **fields: str) -> list[str]:
    request = ListProjectsRequest(**fields)
    answer = await ledger.accounts.ListProjects(request, metadata=metadata)
    return [project.project_id for project in answer.projects]


async def test_a_project_is_shown_to_all_whose_it_is(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, "web", mode=PROJECT_MODE_HYBRID)
    of_organization = bearer((await ledger.key(acme)).secret)
    of_project = bearer((await ledger.key(acme, project_id="web")).secret)

    for organization_id, metadata in ((acme, OPERATOR), ("", of_organization), ("", of_project), (acme, of_project)):
        project = await get(ledger, organization_id, "web", metadata)

        assert (project.organization_id, project.project_id) == (acme, "web")
        assert project.mode == PROJECT_MODE_HYBRID
        assert not project.HasField("archive_time")


async def test_projects_are_listed_page_by_page_newest_first(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    for project_id in ("one", "two", "three", "four", "five"):
        await ledger.project(acme, project_id)
    await ledger.project(globex, "theirs")

    seen: list[str] = []
    request = ListProjectsRequest(organization_id=acme, limit="2")
    while True:
        answer = await ledger.accounts.ListProjects(request, metadata=OPERATOR)
        seen += [project.project_id for project in answer.projects]
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            break

    assert seen == ["five", "four", "three", "two", "one"]


async def test_a_project_key_sees_its_own_project_and_no_other(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, "web")
    await ledger.project(acme, "lab")
    key = bearer((await ledger.key(acme, project_id="web")).secret)

    refusal = await refusal_of(ledger.accounts.GetProject(GetProjectRequest(project_id="lab"), metadata=key))

    assert await names(ledger, key) == ["web"]
    assert (refusal.code, refusal.message) == (MISSING, "There is no project lab.")


async def test_a_page_token_is_no_good_for_another_organization(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    for organization_id in (acme, globex):
        await ledger.project(organization_id, "one")
        await ledger.project(organization_id, "two")
    first = await ledger.accounts.ListProjects(ListProjectsRequest(organization_id=acme, limit="1"), metadata=OPERATOR)

    request = ListProjectsRequest(organization_id=globex, limit="1", page_token=first.next_page_token)
    refusal = await refusal_of(ledger.accounts.ListProjects(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata) == (INVALID, {"field": "page_token"})


async def test_the_projects_of_an_organization_that_does_not_exist_are_not_found(ledger: Ledger) -> None:
    request = ListProjectsRequest(organization_id=UNKNOWN)
    refusal = await refusal_of(ledger.accounts.ListProjects(request, metadata=OPERATOR))

    assert (refusal.code, refusal.message) == (MISSING, f"There is no organization {UNKNOWN}.")


@pytest.mark.parametrize("project_id", ["nowhere", "a b", "", "x" * 100_000, "nul\0"])
async def test_a_project_that_does_not_exist_is_not_found(ledger: Ledger, project_id: str) -> None:
    acme = await ledger.organization()

    for organization_id in (acme, UNKNOWN):
        get_request = GetProjectRequest(organization_id=organization_id, project_id=project_id)
        update_request = UpdateProjectRequest(
            organization_id=organization_id, project_id=project_id, mode=PROJECT_MODE_HYBRID
        )
        for call in (
            ledger.accounts.GetProject(get_request, metadata=OPERATOR),
            ledger.accounts.UpdateProject(update_request, metadata=OPERATOR),
        ):
            refusal = await refusal_of(call)
            assert (refusal.code, refusal.reason) == (MISSING, "NOT_FOUND")


async def test_a_project_changes_how_it_pays(ledger: Ledger) -> None:
    acme = await ledger.organization()
    own = bearer((await ledger.key(acme)).secret)
    key = await ledger.key(acme, project_id=await ledger.project(acme, "web"))

    changed = await update(ledger, "", "web", own, mode=PROJECT_MODE_OWN_KEYS)
    resolved = await ledger.directory.ResolveKey(ResolveKeyRequest(key_hash=hash_key(key.secret)), metadata=INSIDE)

    assert (changed.mode, resolved.project_mode) == (PROJECT_MODE_OWN_KEYS, PROJECT_MODE_OWN_KEYS)
    assert await get(ledger, acme, "web") == changed


async def test_no_calls_are_made_for_an_archived_project_until_it_comes_back(ledger: Ledger) -> None:
    acme = await ledger.organization()
    bound = await ledger.key(acme, project_id=await ledger.project(acme, "web"))
    free = await ledger.key(acme)
    calls = [
        ResolveKeyRequest(key_hash=hash_key(bound.secret)),
        ResolveKeyRequest(key_hash=hash_key(free.secret), project_id="web"),
    ]

    archived = await update(ledger, acme, "web", archived=True)
    for call in calls:
        refusal = await refusal_of(ledger.directory.ResolveKey(call, metadata=INSIDE))
        assert (refusal.code, refusal.message) == (MISSING, "There is no project web.")
    again = await update(ledger, acme, "web", archived=True)
    back = await update(ledger, acme, "web", archived=False)

    assert archived.HasField("archive_time")
    assert again == archived
    assert not back.HasField("archive_time")
    for call in calls:
        assert (await ledger.directory.ResolveKey(call, metadata=INSIDE)).project_mode == PROJECT_MODE_CREDITS


async def test_an_archived_project_is_shown_but_gets_no_keys(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, "web")
    await update(ledger, acme, "web", archived=True)

    request = CreateApiKeyRequest(organization_id=acme, project_id="web")
    refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=OPERATOR))

    assert (refusal.code, refusal.message) == (MISSING, "There is no project web.")
    assert await names(ledger, OPERATOR, organization_id=acme) == ["web"]
    assert (await get(ledger, acme, "web")).HasField("archive_time")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        pytest.param({}, "the request", id="nothing"),
        pytest.param({"mode": PROJECT_MODE_UNSPECIFIED}, "mode", id="no mode"),
        pytest.param({"mode": 9}, "mode", id="a mode of a newer contract"),
    ],
)
async def test_an_update_that_makes_no_sense_is_refused(ledger: Ledger, settings: dict[str, Any], field: str) -> None:
    acme = await ledger.organization()
    request = UpdateProjectRequest(organization_id=acme, project_id=await ledger.project(acme), **settings)

    refusal = await refusal_of(ledger.accounts.UpdateProject(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": field})
