import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.access.v1.access_pb2 import SCOPE_OPERATOR
from tollgate.ledger.v1.account_service_pb2 import (
    ApiKey,
    CreateApiKeyRequest,
    GetApiKeyRequest,
    ListApiKeysRequest,
    UpdateApiKeyRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import (
    SPENDING_PERIOD_DAY,
    SPENDING_PERIOD_MONTH,
    ResolveKeyRequest,
    ResolveKeyResponse,
    SpendingLimit,
)

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
HALF_A_DOLLAR_A_DAY = SpendingLimit(amount="0.50", period=SPENDING_PERIOD_DAY)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


def in_seconds(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return timestamp


async def get(ledger: Ledger, api_key_id: str, metadata: Any = OPERATOR) -> ApiKey:
    answer: ApiKey = (
        await ledger.accounts.GetApiKey(GetApiKeyRequest(api_key_id=api_key_id), metadata=metadata)
    ).api_key
    return answer


async def update(ledger: Ledger, api_key_id: str, metadata: Any = OPERATOR, **settings: Any) -> ApiKey:
    request = UpdateApiKeyRequest(api_key_id=api_key_id, **settings)
    answer: ApiKey = (await ledger.accounts.UpdateApiKey(request, metadata=metadata)).api_key
    return answer


async def listed(ledger: Ledger, metadata: Any = OPERATOR, **fields: str) -> list[str]:
    request = ListApiKeysRequest(**fields)
    answer = await ledger.accounts.ListApiKeys(request, metadata=metadata)
    return [key.api_key_id for key in answer.api_keys]


async def resolve(ledger: Ledger, secret: str) -> ResolveKeyResponse:
    request = ResolveKeyRequest(key_hash=hash_key(secret))
    answer: ResolveKeyResponse = await ledger.directory.ResolveKey(request, metadata=INSIDE)
    return answer


async def test_a_key_is_shown_as_it_was_created_without_its_secret(ledger: Ledger) -> None:
    acme = await ledger.organization()
    created = await ledger.key(acme, display_name="CI", spending_limit=HALF_A_DOLLAR_A_DAY, expire_time=in_seconds(60))

    shown = await get(ledger, created.api_key.api_key_id, bearer(created.secret))

    assert shown == created.api_key
    assert created.secret not in str(shown)


async def test_a_project_key_sees_itself_and_no_other(ledger: Ledger) -> None:
    acme = await ledger.organization()
    await ledger.project(acme, "web")
    own, sister = await ledger.key(acme, project_id="web"), await ledger.key(acme, project_id="web")
    metadata = bearer(own.secret)

    assert await get(ledger, own.api_key.api_key_id, metadata) == own.api_key
    assert await listed(ledger, metadata) == [own.api_key.api_key_id]
    assert await listed(ledger, metadata, project_id="web") == [own.api_key.api_key_id]
    for api_key_id in (sister.api_key.api_key_id, UNKNOWN):
        refusal = await refusal_of(
            ledger.accounts.GetApiKey(GetApiKeyRequest(api_key_id=api_key_id), metadata=metadata)
        )
        assert (refusal.code, refusal.message) == (MISSING, f"There is no API key {api_key_id}.")


async def test_an_organization_lists_its_keys_page_by_page_newest_first_ended_ones_included(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(acme, "web")
    made = [(await ledger.key(acme, project_id="web")).api_key.api_key_id for _ in range(4)]
    await ledger.key(globex)
    await ledger.revoke(made[1])
    own = await ledger.key(acme)

    seen: list[str] = []
    request = ListApiKeysRequest(limit="2")
    while True:
        answer = await ledger.accounts.ListApiKeys(request, metadata=bearer(own.secret))
        seen += [key.api_key_id for key in answer.api_keys]
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            break

    assert seen == [own.api_key.api_key_id, *reversed(made)]
    assert await listed(ledger, bearer(own.secret), project_id="web") == made[::-1]


async def test_operators_list_the_keys_of_one_organization_or_all_there_are(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    of_acme = (await ledger.key(acme)).api_key.api_key_id
    of_globex = (await ledger.key(globex)).api_key.api_key_id
    of_operator = (await ledger.key("", scope=SCOPE_OPERATOR)).api_key.api_key_id

    assert await listed(ledger, organization_id=acme) == [of_acme]
    assert (await listed(ledger, limit="3")) == [of_operator, of_globex, of_acme]
    refusal = await refusal_of(
        ledger.accounts.ListApiKeys(ListApiKeysRequest(organization_id=UNKNOWN), metadata=OPERATOR)
    )
    assert (refusal.code, refusal.message) == (MISSING, f"There is no organization {UNKNOWN}.")


async def test_a_project_that_is_not_the_callers_is_refused_in_a_filter(ledger: Ledger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(globex, "theirs")
    own = bearer((await ledger.key(acme)).secret)

    for project_id in ("theirs", "nowhere"):
        request = ListApiKeysRequest(project_id=project_id)
        refusal = await refusal_of(ledger.accounts.ListApiKeys(request, metadata=own))

        assert (refusal.code, refusal.message) == (DENIED, f"This key may not use project {project_id}; leave it out.")


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"organization_id": "acme"}, "organization_id"),
        ({"project_id": "a b"}, "project_id"),
        ({"limit": "0"}, "limit"),
        ({"page_token": "AAAA"}, "page_token"),
    ],
)
async def test_a_wrong_parameter_is_named(ledger: Ledger, fields: dict[str, str], parameter: str) -> None:
    own = bearer((await ledger.key(await ledger.organization())).secret)

    for metadata in (OPERATOR, own):
        request = ListApiKeysRequest(**fields)
        refusal = await refusal_of(ledger.accounts.ListApiKeys(request, metadata=metadata))

        assert (refusal.code, refusal.metadata) == (INVALID, {"field": parameter})


async def test_the_router_is_told_how_much_a_key_may_spend(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await ledger.key(acme, spending_limit=HALF_A_DOLLAR_A_DAY)
    free = await ledger.key(acme)

    before = await resolve(ledger, key.secret)
    five_a_month = SpendingLimit(amount="5", period=SPENDING_PERIOD_MONTH)
    await update(ledger, key.api_key.api_key_id, spending_limit=five_a_month)
    after = await resolve(ledger, key.secret)
    await update(ledger, key.api_key.api_key_id, clear_spending_limit=True)
    at_last = await resolve(ledger, key.secret)

    assert before.spending_limit == SpendingLimit(amount="0.5", period=SPENDING_PERIOD_DAY)
    assert after.spending_limit == five_a_month
    assert not at_last.HasField("spending_limit")
    assert not (await resolve(ledger, free.secret)).HasField("spending_limit")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        pytest.param({}, "the request", id="nothing"),
        pytest.param({"display_name": "x" * 129}, "display_name", id="a long name"),
        pytest.param({"expire_time": Timestamp(seconds=1)}, "expire_time", id="an end in the past"),
        pytest.param({"expire_time": Timestamp(seconds=2**62)}, "expire_time", id="an end beyond the calendar"),
        pytest.param({"expire_time": in_seconds(7200)}, "expire_time", id="a later end"),
        pytest.param({"spending_limit": SpendingLimit()}, "spending_limit.period", id="an empty limit"),
        pytest.param(
            {"spending_limit": SpendingLimit(amount="-1", period=SPENDING_PERIOD_DAY)},
            "spending_limit.amount",
            id="a limit below nothing",
        ),
        pytest.param(
            {"spending_limit": HALF_A_DOLLAR_A_DAY, "clear_spending_limit": True},
            "clear_spending_limit",
            id="a limit and none",
        ),
    ],
)
async def test_an_update_that_makes_no_sense_is_refused_and_changes_nothing(
    ledger: Ledger, settings: dict[str, Any], field: str
) -> None:
    key = (await ledger.key(await ledger.organization(), expire_time=in_seconds(3600))).api_key

    request = UpdateApiKeyRequest(api_key_id=key.api_key_id, **settings)
    refusal = await refusal_of(ledger.accounts.UpdateApiKey(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": field})
    assert await get(ledger, key.api_key_id) == key


@pytest.mark.parametrize("api_key_id", [UNKNOWN, "", "abc", "x" * 100_000])
async def test_a_key_that_does_not_exist_is_not_found(ledger: Ledger, api_key_id: str) -> None:
    for call in (
        ledger.accounts.GetApiKey(GetApiKeyRequest(api_key_id=api_key_id), metadata=OPERATOR),
        ledger.accounts.UpdateApiKey(UpdateApiKeyRequest(api_key_id=api_key_id, display_name="x"), metadata=OPERATOR),
    ):
        assert (await refusal_of(call)).code == MISSING


async def test_a_key_that_was_given_an_end_stops_there(ledger: Ledger) -> None:
    key = await ledger.key(await ledger.organization())
    await update(ledger, key.api_key.api_key_id, expire_time=in_seconds(1))

    await get(ledger, key.api_key.api_key_id, bearer(key.secret))
    await asyncio.sleep(1.1)

    request = GetApiKeyRequest(api_key_id=key.api_key.api_key_id)
    refusal = await refusal_of(ledger.accounts.GetApiKey(request, metadata=bearer(key.secret)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_a_key_that_ends_creates_none_that_lives_longer(ledger: Ledger) -> None:
    end = in_seconds(3600)
    ending = bearer((await ledger.key(await ledger.organization(), expire_time=end)).secret)

    for request in (CreateApiKeyRequest(), CreateApiKeyRequest(expire_time=in_seconds(3601))):
        refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=ending))
        assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
        assert "may not end later" in refusal.message
    made = await ledger.accounts.CreateApiKey(CreateApiKeyRequest(expire_time=end), metadata=ending)

    assert made.api_key.expire_time == end


async def test_a_key_with_a_limit_neither_passes_it_on_nor_lifts_it(ledger: Ledger) -> None:
    acme = await ledger.organization()
    limited = await ledger.key(acme, spending_limit=HALF_A_DOLLAR_A_DAY)
    metadata = bearer(limited.secret)

    creation = await refusal_of(
        ledger.accounts.CreateApiKey(CreateApiKeyRequest(spending_limit=HALF_A_DOLLAR_A_DAY), metadata=metadata)
    )
    request = UpdateApiKeyRequest(api_key_id=limited.api_key.api_key_id, clear_spending_limit=True)
    lifting = await refusal_of(ledger.accounts.UpdateApiKey(request, metadata=metadata))

    assert (creation.code, lifting.code) == (DENIED, DENIED)
    assert await get(ledger, limited.api_key.api_key_id) == limited.api_key
    assert (await update(ledger, limited.api_key.api_key_id, metadata, display_name="x")).display_name == "x"


async def test_an_operator_key_has_no_limit(ledger: Ledger) -> None:
    request = CreateApiKeyRequest(scope=SCOPE_OPERATOR, spending_limit=HALF_A_DOLLAR_A_DAY)

    refusal = await refusal_of(ledger.accounts.CreateApiKey(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata) == (INVALID, {"field": "spending_limit"})
