"""How a project's calls are treated and how much a key may ask for: set here, told to the router with the key."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.access.v1.access_pb2 import SCOPE_OPERATOR
from tollgate.ledger.v1.account_service_pb2 import (
    ApiKey,
    CreateApiKeyRequest,
    CreateProjectRequest,
    GetApiKeyRequest,
    GetProjectRequest,
    ListApiKeysRequest,
    ListAuditEntriesRequest,
    ListProjectsRequest,
    Project,
    UpdateApiKeyRequest,
    UpdateProjectRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import (
    ANSWER_FORMAT_META,
    PROVIDER_ORDER_LATENCY,
    PROVIDER_ORDER_PRICE,
    SPENDING_PERIOD_TOTAL,
    ProjectSettings,
    RateLimit,
    ResolveKeyRequest,
    ResolveKeyResponse,
    SpendingLimit,
)

DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
TOO_MUCH = 1_000_000_001
EVERYTHING = ProjectSettings(
    provider_order=PROVIDER_ORDER_PRICE,
    preferred_providers=["azure", "openai"],
    cache_seconds=60,
    answer_format=ANSWER_FORMAT_META,
    rate_limit=RateLimit(requests_per_minute=600, tokens_per_minute=1_000_000_000, concurrent_calls=0),
    end_user_rate_limit=RateLimit(requests_per_minute=0, tokens_per_minute=5_000, concurrent_calls=2),
)
SIX_CALLS = RateLimit(requests_per_minute=6)
A_LOT = SpendingLimit(amount="9", period=SPENDING_PERIOD_TOTAL)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def set_project(ledger: Ledger, organization_id: str, settings: ProjectSettings | None, **more: Any) -> Project:
    request = UpdateProjectRequest(organization_id=organization_id, project_id="web", settings=settings, **more)
    answer: Project = (await ledger.accounts.UpdateProject(request, metadata=OPERATOR)).project
    return answer


async def set_key(ledger: Ledger, api_key_id: str, metadata: Any = OPERATOR, **settings: Any) -> ApiKey:
    request = UpdateApiKeyRequest(api_key_id=api_key_id, **settings)
    answer: ApiKey = (await ledger.accounts.UpdateApiKey(request, metadata=metadata)).api_key
    return answer


async def resolve(ledger: Ledger, secret: str, project_id: str = "") -> ResolveKeyResponse:
    request = ResolveKeyRequest(key_hash=hash_key(secret), project_id=project_id)
    answer: ResolveKeyResponse = await ledger.directory.ResolveKey(request, metadata=INSIDE)
    return answer


async def newest_entry(ledger: Ledger, organization_id: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    request = ListAuditEntriesRequest(organization_id=organization_id, limit="1")
    (entry,) = (await ledger.accounts.ListAuditEntries(request, metadata=OPERATOR)).audit_entries
    return entry.action, dict(entry.before), dict(entry.after)


async def test_a_project_of_which_nothing_is_said_is_as_the_router_is_configured(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme))

    shown = await ledger.accounts.GetProject(GetProjectRequest(project_id="web"), metadata=bearer(key.secret))
    resolved = await resolve(ledger, key.secret)

    assert not shown.project.HasField("settings")
    assert not key.api_key.HasField("rate_limit")
    assert not resolved.HasField("project_settings")
    assert not resolved.HasField("rate_limit")


async def test_what_is_set_is_shown_wherever_the_project_is_and_told_with_every_key_that_calls_for_it(
    ledger: Ledger,
) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, settings=EVERYTHING)
    await ledger.project(acme, "lab")
    bound, free = await ledger.key(acme, project_id="web"), await ledger.key(acme)
    own = bearer(free.secret)

    shown = await ledger.accounts.GetProject(GetProjectRequest(project_id="web"), metadata=own)
    listed = await ledger.accounts.ListProjects(ListProjectsRequest(), metadata=own)

    assert shown.project.settings == EVERYTHING
    assert {project.project_id: project.settings for project in listed.projects} == {
        "web": EVERYTHING,
        "lab": ProjectSettings(),
    }
    assert (await resolve(ledger, bound.secret)).project_settings == EVERYTHING
    assert (await resolve(ledger, free.secret, "web")).project_settings == EVERYTHING
    assert not (await resolve(ledger, free.secret, "lab")).HasField("project_settings")
    assert not (await resolve(ledger, free.secret)).HasField("project_settings")


async def test_new_settings_replace_all_earlier_ones_and_none_take_them_away(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme, settings=EVERYTHING))
    by_latency = ProjectSettings(provider_order=PROVIDER_ORDER_LATENCY, cache_seconds=0)

    archived = await set_project(ledger, acme, None, archived=True)
    replaced = await set_project(ledger, acme, by_latency, archived=False)
    resolved = await resolve(ledger, key.secret)
    emptied = await set_project(ledger, acme, ProjectSettings())

    assert archived.settings == EVERYTHING
    assert replaced.settings == resolved.project_settings == by_latency
    assert resolved.project_settings.HasField("cache_seconds")
    assert not emptied.HasField("settings")
    assert not (await resolve(ledger, key.secret)).HasField("project_settings")


async def test_the_settings_of_one_organization_are_not_those_of_anothers_project_of_the_same_name(
    ledger: Ledger,
) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(acme, settings=EVERYTHING)
    theirs = await ledger.key(globex, project_id=await ledger.project(globex))

    assert not (await resolve(ledger, theirs.secret)).HasField("project_settings")


async def test_the_log_tells_which_settings_changed(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, settings=EVERYTHING)
    changed = ProjectSettings()
    changed.CopyFrom(EVERYTHING)
    changed.preferred_providers[:] = ["groq"]
    changed.ClearField("cache_seconds")
    changed.rate_limit.requests_per_minute = 60

    assert await newest_entry(ledger, acme) == (
        "project.create",
        {},
        {
            "mode": "CREDITS",
            "provider_order": "PRICE",
            "preferred_providers": "azure, openai",
            "cache_seconds": 60,
            "answer_format": "META",
            "requests_per_minute": 600,
            "tokens_per_minute": 1_000_000_000,
            "concurrent_calls": 0,
            "end_user_requests_per_minute": 0,
            "end_user_tokens_per_minute": 5_000,
            "end_user_concurrent_calls": 2,
        },
    )
    await set_project(ledger, acme, changed)
    assert await newest_entry(ledger, acme) == (
        "project.update",
        {"preferred_providers": "azure, openai", "cache_seconds": 60, "requests_per_minute": 600},
        {"preferred_providers": "groq", "cache_seconds": None, "requests_per_minute": 60},
    )
    await set_project(ledger, acme, changed)
    assert (await newest_entry(ledger, acme))[2]["requests_per_minute"] == 60, (
        "a change that changes nothing is no entry"
    )


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        pytest.param({"provider_order": 9}, "provider_order", id="an order of a newer contract"),
        pytest.param({"answer_format": 9}, "answer_format", id="a format of a newer contract"),
        pytest.param({"preferred_providers": ["openai", "a b"]}, "preferred_providers[1]", id="no provider's name"),
        pytest.param({"preferred_providers": [""]}, "preferred_providers[0]", id="an empty name"),
        pytest.param({"preferred_providers": ["a", "b", "a"]}, "preferred_providers", id="a name twice"),
        pytest.param({"preferred_providers": [f"p{n}" for n in range(33)]}, "preferred_providers", id="33 names"),
        pytest.param({"cache_seconds": -1}, "cache_seconds", id="a cache of the past"),
        pytest.param({"cache_seconds": 2_592_001}, "cache_seconds", id="a cache of more than 30 days"),
        pytest.param(
            {"rate_limit": RateLimit(requests_per_minute=-1)},
            "rate_limit.requests_per_minute",
            id="fewer than no calls",
        ),
        pytest.param(
            {"rate_limit": RateLimit(tokens_per_minute=TOO_MUCH)}, "rate_limit.tokens_per_minute", id="too many tokens"
        ),
        pytest.param(
            {"end_user_rate_limit": RateLimit(concurrent_calls=-2_147_483_648)},
            "end_user_rate_limit.concurrent_calls",
            id="of an end user",
        ),
    ],
)
async def test_a_setting_that_cannot_be_is_named(ledger: Ledger, settings: dict[str, Any], field: str) -> None:
    acme = await ledger.organization()
    await ledger.project(acme)
    said = ProjectSettings(**settings)
    for call in (
        ledger.accounts.UpdateProject(
            UpdateProjectRequest(organization_id=acme, project_id="web", settings=said), metadata=OPERATOR
        ),
        ledger.accounts.CreateProject(
            CreateProjectRequest(organization_id=acme, project_id="lab", settings=said), metadata=OPERATOR
        ),
    ):
        refusal = await refusal_of(call)

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": f"settings.{field}"})
        assert refusal.message.startswith(f"settings.{field} ")


async def test_a_keys_rate_limit_is_shown_and_told_until_it_is_taken_away(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme), rate_limit=SIX_CALLS)
    key_id = key.api_key.api_key_id
    tokens = RateLimit(tokens_per_minute=100)

    listed = await ledger.accounts.ListApiKeys(ListApiKeysRequest(organization_id=acme), metadata=OPERATOR)
    shown = await ledger.accounts.GetApiKey(GetApiKeyRequest(api_key_id=key_id), metadata=bearer(key.secret))
    first = await resolve(ledger, key.secret)
    renamed = await set_key(ledger, key_id, display_name="CI")
    replaced = await set_key(ledger, key_id, rate_limit=tokens)
    entry = await newest_entry(ledger, acme)
    second = await resolve(ledger, key.secret)
    emptied = await set_key(ledger, key_id, rate_limit=RateLimit())

    assert [each.rate_limit for each in listed.api_keys] == [SIX_CALLS]
    assert key.api_key.rate_limit == shown.api_key.rate_limit == first.rate_limit == renamed.rate_limit == SIX_CALLS
    assert replaced.rate_limit == second.rate_limit == tokens
    assert entry == (
        "api_key.update",
        {"requests_per_minute": 6, "tokens_per_minute": None},
        {"requests_per_minute": None, "tokens_per_minute": 100},
    )
    assert not emptied.HasField("rate_limit")
    assert not (await resolve(ledger, key.secret)).HasField("rate_limit")


async def test_a_key_with_a_rate_limit_lifts_none_and_makes_no_second_key_to_call_with(ledger: Ledger) -> None:
    acme = await ledger.organization()
    limited = await ledger.key(acme, rate_limit=SIX_CALLS)
    own, key_id = bearer(limited.secret), limited.api_key.api_key_id

    calls = [
        ledger.accounts.UpdateApiKey(UpdateApiKeyRequest(api_key_id=key_id, rate_limit=change), metadata=own)
        for change in (RateLimit(), RateLimit(requests_per_minute=1_000))
    ]
    calls += [
        ledger.accounts.CreateApiKey(CreateApiKeyRequest(), metadata=own),
        ledger.accounts.CreateApiKey(CreateApiKeyRequest(rate_limit=SIX_CALLS), metadata=own),
        ledger.accounts.UpdateApiKey(UpdateApiKeyRequest(api_key_id=key_id, spending_limit=A_LOT), metadata=own),
    ]
    for call in calls:
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.message.split(" and ")[0]) == (DENIED, "This key has a rate limit")
    reader = await ledger.accounts.CreateApiKey(CreateApiKeyRequest(read_only=True), metadata=own)

    assert reader.api_key.read_only


@pytest.mark.parametrize("rate", ["requests_per_minute", "tokens_per_minute", "concurrent_calls"])
@pytest.mark.parametrize("number", [-1, TOO_MUCH])
async def test_a_rate_that_no_key_can_have_is_named(ledger: Ledger, rate: str, number: int) -> None:
    acme = await ledger.organization()
    key_id = (await ledger.key(acme)).api_key.api_key_id
    limit = RateLimit(**{rate: number})
    for call in (
        ledger.accounts.CreateApiKey(CreateApiKeyRequest(organization_id=acme, rate_limit=limit), metadata=OPERATOR),
        ledger.accounts.UpdateApiKey(UpdateApiKeyRequest(api_key_id=key_id, rate_limit=limit), metadata=OPERATOR),
    ):
        refusal = await refusal_of(call)

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": f"rate_limit.{rate}"})


async def test_an_operator_key_calls_no_models_and_has_no_rate_limit(ledger: Ledger) -> None:
    key_id = (await ledger.key("", scope=SCOPE_OPERATOR)).api_key.api_key_id
    for call in (
        ledger.accounts.CreateApiKey(
            CreateApiKeyRequest(scope=SCOPE_OPERATOR, rate_limit=SIX_CALLS), metadata=OPERATOR
        ),
        ledger.accounts.UpdateApiKey(UpdateApiKeyRequest(api_key_id=key_id, rate_limit=SIX_CALLS), metadata=OPERATOR),
    ):
        refusal = await refusal_of(call)

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": "rate_limit"})


async def test_a_project_key_changes_neither_its_project_nor_itself(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, project_id=await ledger.project(acme, settings=EVERYTHING), rate_limit=SIX_CALLS)
    own = bearer(key.secret)
    for call in (
        ledger.accounts.UpdateProject(UpdateProjectRequest(project_id="web", settings=ProjectSettings()), metadata=own),
        ledger.accounts.UpdateApiKey(
            UpdateApiKeyRequest(api_key_id=key.api_key.api_key_id, rate_limit=RateLimit()), metadata=own
        ),
    ):
        assert (await refusal_of(call)).code == DENIED
