"""No key learns anything of what is not its own: every method, aimed at the foreign and at what does not exist."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.conftest import Database
from tests.contract.ledger.accounts_server import OPERATOR, Ledger, Refusal, bearer, refusal_of, running_ledger
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import account_service_pb2 as wire
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_HYBRID

DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
METHODS = wire.DESCRIPTOR.services_by_name["AccountService"].methods


@dataclass(frozen=True, slots=True)
class Place:
    """Ids of one organization's things, or of things that do not exist."""

    organization_id: str
    project_id: str
    api_key_id: str
    provider: str

    def not_named_in(self, refusal: Refusal) -> tuple[Any, ...]:
        """The refusal without the ids, which the caller knows, having sent them."""
        message = refusal.message
        for name in (self.organization_id, self.project_id, self.api_key_id, self.provider):
            message = message.replace(name, "…")
        return refusal.code, refusal.reason, message, sorted(refusal.metadata)


NOWHERE = Place(
    "0199a000-0000-7000-8000-00000000dead", "nowhere", "0199a000-0000-7000-8000-00000000beef", "no-such-provider"
)

Aim = Callable[[Place], Any]
# Methods that name a thing by its id: not found.
IN_PATH: dict[str, Aim] = {
    "GetOrganization": lambda to: wire.GetOrganizationRequest(organization_id=to.organization_id),
    "UpdateOrganization": lambda to: wire.UpdateOrganizationRequest(
        organization_id=to.organization_id, payload_retained=True
    ),
    "GetProject": lambda to: wire.GetProjectRequest(project_id=to.project_id),
    "UpdateProject": lambda to: wire.UpdateProjectRequest(project_id=to.project_id, mode=PROJECT_MODE_HYBRID),
    "GetApiKey": lambda to: wire.GetApiKeyRequest(api_key_id=to.api_key_id),
    "UpdateApiKey": lambda to: wire.UpdateApiKeyRequest(api_key_id=to.api_key_id, display_name="mine"),
    "RevokeApiKey": lambda to: wire.RevokeApiKeyRequest(api_key_id=to.api_key_id),
    "DeleteProviderKey": lambda to: wire.DeleteProviderKeyRequest(provider=to.provider),
}
# Methods that may name an organization beside what they are about: refused.
IN_FILTER: dict[str, Aim] = {
    "CreateProject": lambda to: wire.CreateProjectRequest(organization_id=to.organization_id, project_id="new"),
    "GetProject": lambda to: wire.GetProjectRequest(organization_id=to.organization_id, project_id=to.project_id),
    "ListProjects": lambda to: wire.ListProjectsRequest(organization_id=to.organization_id),
    "UpdateProject": lambda to: wire.UpdateProjectRequest(
        organization_id=to.organization_id, project_id=to.project_id, archived=True
    ),
    "CreateApiKey": lambda to: wire.CreateApiKeyRequest(organization_id=to.organization_id),
    "ListApiKeys": lambda to: wire.ListApiKeysRequest(organization_id=to.organization_id),
    "SetProviderKey": lambda to: wire.SetProviderKeyRequest(
        organization_id=to.organization_id, provider="openai", secret="sk-planted"
    ),
    "ListProviderKeys": lambda to: wire.ListProviderKeysRequest(organization_id=to.organization_id),
    "DeleteProviderKey": lambda to: wire.DeleteProviderKeyRequest(
        organization_id=to.organization_id, provider=to.provider
    ),
    "ListAuditEntries": lambda to: wire.ListAuditEntriesRequest(organization_id=to.organization_id),
}
# Methods of operators, which nobody else may aim at anything.
OPERATORS: dict[str, Aim] = {
    "CreateOrganization": lambda to: wire.CreateOrganizationRequest(display_name="mine"),
    "ListOrganizations": lambda to: wire.ListOrganizationsRequest(),
}


def writes(method: str) -> bool:
    """Whether the contract says that it changes something."""
    options = wire.DESCRIPTOR.services_by_name["AccountService"].methods_by_name[method].GetOptions()
    return bool(options.Extensions[access_pb2.access].writes)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


@pytest.fixture(scope="module")
async def theirs(ledger: Ledger) -> Place:
    """An organization with everything, of which nobody else is to learn anything."""
    organization_id = await ledger.organization(display_name="Globex")
    await ledger.project(organization_id, "theirs")
    key = await ledger.key(organization_id)
    request = wire.SetProviderKeyRequest(organization_id=organization_id, provider="their-provider", secret="sk")
    await ledger.accounts.SetProviderKey(request, metadata=OPERATOR)
    return Place(organization_id, "theirs", key.api_key.api_key_id, "their-provider")


@pytest.fixture(scope="module")
async def mine(ledger: Ledger) -> Place:
    organization_id = await ledger.organization(display_name="Acme")
    await ledger.project(organization_id, "mine")
    key = await ledger.key(organization_id)
    return Place(organization_id, "mine", key.api_key.api_key_id, "openai")


async def state_of(ledger: Ledger, place: Place) -> list[str]:
    """All that an operator sees of an organization."""
    organization = wire.GetOrganizationRequest(organization_id=place.organization_id)
    entries = wire.ListAuditEntriesRequest(organization_id=place.organization_id, limit="500")
    return [
        str(await ledger.accounts.GetOrganization(organization, metadata=OPERATOR)),
        str(await ledger.accounts.ListAuditEntries(entries, metadata=OPERATOR)),
    ]


def test_every_method_is_aimed_at_something() -> None:
    assert {method.name for method in METHODS} == {*IN_PATH, *IN_FILTER, *OPERATORS}


@pytest.mark.parametrize("method", IN_PATH)
async def test_a_foreign_id_in_a_path_is_as_absent_as_one_that_does_not_exist(
    ledger: Ledger, mine: Place, theirs: Place, method: str
) -> None:
    key = bearer((await ledger.key(mine.organization_id)).secret)
    before = await state_of(ledger, theirs)

    foreign = await refusal_of(getattr(ledger.accounts, method)(IN_PATH[method](theirs), metadata=key))
    absent = await refusal_of(getattr(ledger.accounts, method)(IN_PATH[method](NOWHERE), metadata=key))

    assert foreign.code == MISSING
    assert theirs.not_named_in(foreign) == NOWHERE.not_named_in(absent)
    assert await state_of(ledger, theirs) == before


@pytest.mark.parametrize("method", IN_FILTER)
async def test_a_foreign_organization_in_a_filter_is_refused_whether_it_exists_or_not(
    ledger: Ledger, mine: Place, theirs: Place, method: str
) -> None:
    key = bearer((await ledger.key(mine.organization_id)).secret)
    before = await state_of(ledger, theirs)

    foreign = await refusal_of(getattr(ledger.accounts, method)(IN_FILTER[method](theirs), metadata=key))
    absent = await refusal_of(getattr(ledger.accounts, method)(IN_FILTER[method](NOWHERE), metadata=key))

    assert foreign.code == DENIED
    assert theirs.not_named_in(foreign) == NOWHERE.not_named_in(absent)
    assert await state_of(ledger, theirs) == before


@pytest.mark.parametrize("method", OPERATORS)
async def test_what_is_for_operators_is_refused_to_all_others(ledger: Ledger, mine: Place, method: str) -> None:
    key = bearer((await ledger.key(mine.organization_id)).secret)

    refusal = await refusal_of(getattr(ledger.accounts, method)(OPERATORS[method](NOWHERE), metadata=key))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("method", [name for name in {**IN_PATH, **IN_FILTER} if writes(name)])
async def test_a_read_only_key_changes_nothing_even_of_its_own(ledger: Ledger, mine: Place, method: str) -> None:
    key = bearer((await ledger.key(mine.organization_id, read_only=True)).secret)
    aim = {**IN_PATH, **IN_FILTER}[method]
    before = await state_of(ledger, mine)

    refusal = await refusal_of(getattr(ledger.accounts, method)(aim(mine), metadata=key))

    assert (refusal.code, refusal.reason) == (DENIED, "READ_ONLY_KEY")
    assert await state_of(ledger, mine) == before


@pytest.mark.parametrize("method", [name for name in {**IN_PATH, **IN_FILTER} if writes(name)])
async def test_a_project_key_changes_nothing_even_of_its_own(ledger: Ledger, mine: Place, method: str) -> None:
    key = bearer((await ledger.key(mine.organization_id, project_id=mine.project_id)).secret)
    aim = {**IN_PATH, **IN_FILTER}[method]
    before = await state_of(ledger, mine)

    refusal = await refusal_of(getattr(ledger.accounts, method)(aim(mine), metadata=key))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
    assert await state_of(ledger, mine) == before


@pytest.mark.parametrize("method", ["GetOrganization", "ListProviderKeys", "ListAuditEntries", "ListOrganizations"])
async def test_a_project_key_reads_its_project_and_itself_only(ledger: Ledger, mine: Place, method: str) -> None:
    key = bearer((await ledger.key(mine.organization_id, project_id=mine.project_id)).secret)
    aim = {**IN_FILTER, **IN_PATH, **OPERATORS}[method]

    refusal = await refusal_of(getattr(ledger.accounts, method)(aim(mine), metadata=key))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("method", [method.name for method in METHODS])
async def test_a_stranger_is_turned_away_before_anything_is_looked_at(
    ledger: Ledger, theirs: Place, method: str
) -> None:
    aim = {**IN_FILTER, **IN_PATH, **OPERATORS}[method]

    for metadata in ((), bearer("tg_unknown")):
        refusal = await refusal_of(getattr(ledger.accounts, method)(aim(theirs), metadata=metadata))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")
