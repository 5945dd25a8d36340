from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import pytest

from tests.conftest import Database
from tests.contract.ledger.accounts_server import OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.access.v1.access_pb2 import SCOPE_OPERATOR, SCOPE_ORGANIZATION, SCOPE_SERVICE
from tollgate.ledger.v1.account_service_pb2 import (
    PLAN_PRO,
    AuditEntry,
    ListAuditEntriesRequest,
    SetProviderKeyRequest,
    UpdateOrganizationRequest,
    UpdateProjectRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import PROJECT_MODE_HYBRID

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def entries(ledger: Ledger, metadata: Any = OPERATOR, **fields: str) -> list[AuditEntry]:
    request = ListAuditEntriesRequest(**fields)
    return list((await ledger.accounts.ListAuditEntries(request, metadata=metadata)).audit_entries)


def what(listed: list[AuditEntry]) -> list[tuple[str, str]]:
    return [(entry.action, entry.subject) for entry in listed]


async def test_an_organization_sees_what_was_done_to_it_by_itself_and_by_operators(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    acme, globex = await ledger.organization(), await ledger.organization()
    key = await ledger.key(acme)
    await ledger.project(globex, "theirs")
    request = UpdateOrganizationRequest(organization_id=acme, display_name="Acme Ltd")
    await ledger.accounts.UpdateOrganization(request, metadata=bearer(key.secret))

    seen = await entries(ledger, bearer(key.secret))

    assert what(seen) == [
        ("organization.update", acme),
        ("api_key.create", key.api_key.api_key_id),
        ("organization.create", acme),
    ]
    assert [entry.actor_scope for entry in seen] == [SCOPE_ORGANIZATION, SCOPE_OPERATOR, SCOPE_OPERATOR]
    assert seen[0].actor_api_key_id == key.api_key.api_key_id
    assert {entry.organization_id for entry in seen} == {acme}
    for entry in seen:
        assert UUID(entry.audit_id).version == 7
        assert before <= entry.create_time.ToDatetime(UTC) <= datetime.now(UTC)


async def test_an_entry_tells_what_the_settings_were_and_what_they_are(ledger: Ledger) -> None:
    acme = await ledger.organization(display_name="Acme")
    request = UpdateOrganizationRequest(organization_id=acme, plan=PLAN_PRO, payload_retained=True)
    await ledger.accounts.UpdateOrganization(request, metadata=OPERATOR)

    changed, made = await entries(ledger, organization_id=acme)

    assert dict(changed.before) == {"plan": "FREE", "retention_days": 3, "payload_retained": False}
    assert dict(changed.after) == {"plan": "PRO", "retention_days": 90, "payload_retained": True}
    assert (made.HasField("before"), dict(made.before)) == (True, {})
    assert made.after["display_name"] == "Acme"


async def test_no_secret_is_ever_in_the_log(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme)
    request = SetProviderKeyRequest(organization_id=acme, provider="openai", secret="sk-very-private")
    await ledger.accounts.SetProviderKey(request, metadata=OPERATOR)

    seen = str(await entries(ledger, organization_id=acme))

    assert "provider_key.set" in seen
    assert "sk-very-private" not in seen
    assert key.secret not in seen


async def test_operators_see_everything_what_belongs_to_no_organization_included(ledger: Ledger) -> None:
    acme = await ledger.organization()
    operators = (await ledger.key("", scope=SCOPE_OPERATOR)).api_key.api_key_id
    globex = await ledger.organization()

    seen = await entries(ledger, limit="3")

    assert what(seen) == [
        ("organization.create", globex),
        ("api_key.create", operators),
        ("organization.create", acme),
    ]
    assert [entry.organization_id for entry in seen] == [globex, "", acme]


async def test_what_a_starting_ledger_does_was_done_by_a_service(ledger: Ledger) -> None:
    seeded = [
        entry for entry in await entries(ledger, action="api_key.create", limit="500") if not entry.actor_api_key_id
    ]

    assert [(entry.actor_scope, entry.organization_id) for entry in seeded] == [(SCOPE_SERVICE, "")]
    assert seeded[0].after["display_name"] == "GATEWAY_API_KEY"


async def test_the_log_is_read_page_by_page_without_gap_or_repeat_across_both_of_its_parts(ledger: Ledger) -> None:
    for _ in range(3):
        await ledger.organization()
        await ledger.key("", scope=SCOPE_OPERATOR)
    whole = [entry.audit_id for entry in await entries(ledger, limit="500")]

    seen: list[str] = []
    request = ListAuditEntriesRequest(limit="2")
    while True:
        answer = await ledger.accounts.ListAuditEntries(request, metadata=OPERATOR)
        seen += [entry.audit_id for entry in answer.audit_entries]
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            break

    assert seen == whole
    assert seen == sorted(seen, reverse=True)


async def test_a_change_made_while_reading_does_not_disturb_the_pages(ledger: Ledger) -> None:
    acme = await ledger.organization()
    for project_id in ("one", "two", "three"):
        await ledger.project(acme, project_id)
    request = ListAuditEntriesRequest(organization_id=acme, limit="2")
    first = await ledger.accounts.ListAuditEntries(request, metadata=OPERATOR)
    await ledger.project(acme, "four")

    rest = await entries(ledger, organization_id=acme, limit="2", page_token=first.next_page_token)

    assert what(list(first.audit_entries) + rest) == [
        ("project.create", "three"),
        ("project.create", "two"),
        ("project.create", "one"),
        ("organization.create", acme),
    ]


async def test_filters_narrow_the_list(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme)
    await ledger.project(acme, "web")
    await ledger.project(acme, "lab")
    middle = (await entries(ledger, organization_id=acme, subject="lab"))[0].create_time.ToJsonString()
    request = UpdateProjectRequest(project_id="web", mode=PROJECT_MODE_HYBRID)
    await ledger.accounts.UpdateProject(request, metadata=bearer(key.secret))

    async def found(**fields: str) -> list[tuple[str, str]]:
        return what(await entries(ledger, bearer(key.secret), **fields))

    assert await found(action="project.create") == [("project.create", "lab"), ("project.create", "web")]
    assert await found(subject="web") == [("project.update", "web"), ("project.create", "web")]
    assert await found(api_key_id=key.api_key.api_key_id) == [("project.update", "web")]
    assert await found(from_time=middle) == [("project.update", "web"), ("project.create", "lab")]
    assert (await found(to_time=middle))[0] == ("project.create", "web")
    assert await found(from_time=middle, to_time=middle) == []
    assert await found(subject="nothing") == []


async def test_a_page_token_is_no_good_for_other_filters(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme)
    request = ListAuditEntriesRequest(organization_id=acme, limit="1")
    token = (await ledger.accounts.ListAuditEntries(request, metadata=OPERATOR)).next_page_token

    request = ListAuditEntriesRequest(organization_id=acme, limit="1", page_token=token, action="project.create")
    refusal = await refusal_of(ledger.accounts.ListAuditEntries(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata) == (INVALID, {"field": "page_token"})


async def test_a_key_that_is_not_the_callers_is_refused_in_a_filter(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    own = bearer((await ledger.key(acme)).secret)
    theirs = (await ledger.key(globex)).api_key.api_key_id
    operators = (await ledger.key("", scope=SCOPE_OPERATOR)).api_key.api_key_id

    for api_key_id in (theirs, operators, UNKNOWN):
        request = ListAuditEntriesRequest(api_key_id=api_key_id)
        refusal = await refusal_of(ledger.accounts.ListAuditEntries(request, metadata=own))

        assert (refusal.code, refusal.message) == (DENIED, f"This key may not use API key {api_key_id}; leave it out.")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"organization_id": "acme"}, INVALID, "organization_id"),
        ({"organization_id": UNKNOWN}, MISSING, None),
        ({"api_key_id": "abc"}, INVALID, "api_key_id"),
        ({"action": "revoke"}, INVALID, "action"),
        ({"subject": "x" * 129}, INVALID, "subject"),
        ({"from_time": "yesterday"}, INVALID, "from"),
        ({"to_time": "2026-02-30T00:00:00Z"}, INVALID, "to"),
        ({"from_time": "2026-03-02T00:00:00Z", "to_time": "2026-03-01T00:00:00Z"}, INVALID, "to"),
        ({"limit": "501"}, INVALID, "limit"),
        ({"page_token": "abc"}, INVALID, "page_token"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(
    ledger: Ledger, fields: dict[str, str], code: grpc.StatusCode, field: str | None
) -> None:
    request = ListAuditEntriesRequest(**fields)
    refusal = await refusal_of(ledger.accounts.ListAuditEntries(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata.get("field")) == (code, field)
