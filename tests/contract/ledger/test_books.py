import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.authentication import hash_key
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, refusal_of
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.usage_builders import a_record, a_request, books_of
from tollgate.ledger.v1.billing_service_pb2 import (
    CREDIT_KIND_PREPAID,
    CREDIT_KIND_PROMOTIONAL,
    GetBalanceRequest,
    GetBalanceResponse,
    GrantCreditsRequest,
    GrantCreditsResponse,
)
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyRequest
from tollgate.ledger.v1.usage_pb2 import Usage

# 400,000 tokens out of gpt-4o at 10 USD per million.
FOUR_USD = Usage(output_tokens=400_000)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


@pytest.fixture
async def organization_id(ledger: WholeLedger) -> str:
    return await ledger.organization()


async def grant(ledger: WholeLedger, organization_id: str, amount: str, **fields: Any) -> GrantCreditsResponse:
    values = {"organization_id": organization_id, "grant_id": "first", "amount": amount, **fields}
    request = GrantCreditsRequest(**values)
    granted: GrantCreditsResponse = await ledger.billing.GrantCredits(request, metadata=OPERATOR, timeout=5)
    return granted


async def balance_of(ledger: WholeLedger, organization_id: str) -> GetBalanceResponse:
    request = GetBalanceRequest(organization_id=organization_id)
    balance: GetBalanceResponse = await ledger.billing.GetBalance(request, metadata=OPERATOR, timeout=5)
    return balance


async def spend_four_usd(ledger: WholeLedger, organization_id: str) -> None:
    request = a_request(a_record(organization_id, usage=FOUR_USD))
    await ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5)


async def test_an_organization_begins_with_nothing(ledger: WholeLedger, organization_id: str) -> None:
    assert await balance_of(ledger, organization_id) == GetBalanceResponse(
        organization_id=organization_id,
        balance="0",
        prepaid="0",
        promotional="0",
        receivable="0",
        sequence="0",
        held="0",
    )


async def test_credit_that_is_granted_can_be_spent(ledger: WholeLedger, organization_id: str) -> None:
    granted = await grant(ledger, organization_id, "10.000000000001")

    assert (granted.amount, granted.kind, granted.balance) == (
        "10.000000000001",
        CREDIT_KIND_PREPAID,
        "10.000000000001",
    )
    assert granted.HasField("create_time")
    balance = await balance_of(ledger, organization_id)
    assert (balance.prepaid, balance.sequence) == ("10.000000000001", "1")


async def test_repeating_a_grant_grants_once_and_answers_the_same(ledger: WholeLedger, organization_id: str) -> None:
    first = await grant(ledger, organization_id, "10")
    await grant(ledger, organization_id, "1", grant_id="second")

    # Written differently, it is the same amount.
    again = await grant(ledger, organization_id, "10.00")

    assert again == first
    assert (await balance_of(ledger, organization_id)).balance == "11"


async def test_a_grant_that_comes_many_times_at_once_is_booked_once(
    ledger: WholeLedger, organization_id: str, database: Database
) -> None:
    async with a_whole_ledger(database) as another:
        granted = await asyncio.gather(*(grant(one, organization_id, "10") for one in [ledger, another] * 4))

    assert all(one == granted[0] for one in granted)
    assert (await balance_of(ledger, organization_id)).balance == "10"


@pytest.mark.parametrize("fields", [{"amount": "11"}, {"kind": CREDIT_KIND_PROMOTIONAL}])
async def test_a_grant_id_stands_for_one_amount_and_kind(
    ledger: WholeLedger, organization_id: str, fields: dict[str, Any]
) -> None:
    await grant(ledger, organization_id, "10")

    refusal = await refusal_of(grant(ledger, organization_id, **{"amount": "10", **fields}))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert refusal.metadata == {"grant_id": "first"}


async def test_calls_spend_promotional_credit_first_and_are_charged_beyond_all_credit(
    ledger: WholeLedger, organization_id: str, database: Database
) -> None:
    await grant(ledger, organization_id, "5")
    await grant(ledger, organization_id, "2", grant_id="gift", kind=CREDIT_KIND_PROMOTIONAL)

    await spend_four_usd(ledger, organization_id)
    balance = await balance_of(ledger, organization_id)
    assert (balance.balance, balance.promotional, balance.prepaid, balance.receivable) == ("3", "0", "3", "0")

    await spend_four_usd(ledger, organization_id)
    balance = await balance_of(ledger, organization_id)
    assert (balance.balance, balance.receivable, balance.sequence) == ("0", "1", "4")
    assert books_of(database, organization_id).agree


async def test_new_credit_settles_what_is_owed(ledger: WholeLedger, organization_id: str) -> None:
    await spend_four_usd(ledger, organization_id)

    granted = await grant(ledger, organization_id, "10")

    assert granted.balance == "6"
    assert (await balance_of(ledger, organization_id)).receivable == "0"


async def test_the_router_hears_whether_credit_is_left(ledger: WholeLedger, organization_id: str) -> None:
    ((_, bearer),) = await ledger.key_of(organization_id)
    key_hash = hash_key(bearer.removeprefix("Bearer "))

    async def credit_available() -> bool:
        request = ResolveKeyRequest(key_hash=key_hash)
        return bool((await ledger.directory.ResolveKey(request, metadata=INSIDE, timeout=5)).credit_available)

    before = await credit_available()
    await grant(ledger, organization_id, "4")
    granted = await credit_available()
    await spend_four_usd(ledger, organization_id)

    assert (before, granted, await credit_available()) == (False, True, False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "9000000.000000000001"}, "amount"),
        ({"amount": "0.0000000000001"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "10 EUR"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"grant_id": ""}, "grant_id"),
        ({"grant_id": "a b"}, "grant_id"),
        ({"kind": 9}, "kind"),
        ({"organization_id": "acme"}, "organization_id"),
        ({"organization_id": ""}, "organization_id"),
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused_by_its_field(
    ledger: WholeLedger, organization_id: str, fields: dict[str, Any], field: str
) -> None:
    values = {"organization_id": organization_id, "amount": "10", **fields}

    refusal = await refusal_of(grant(ledger, **values))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.metadata["field"] == field


async def test_nobody_can_grant_to_an_organization_that_does_not_exist(ledger: WholeLedger) -> None:
    nobody = "0199a000-0000-7000-8000-00000000000a"

    for call in (grant(ledger, nobody, "10"), balance_of(ledger, nobody)):
        assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND


async def test_an_organization_sees_its_own_balance_and_no_other(ledger: WholeLedger, organization_id: str) -> None:
    key = await ledger.key_of(organization_id)
    other = await ledger.organization()

    own = await ledger.billing.GetBalance(GetBalanceRequest(), metadata=key, timeout=5)
    foreign = GetBalanceRequest(organization_id=other)
    refusal = await refusal_of(ledger.billing.GetBalance(foreign, metadata=key, timeout=5))

    assert own.organization_id == organization_id
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_an_organization_cannot_grant_itself_credit(ledger: WholeLedger, organization_id: str) -> None:
    request = GrantCreditsRequest(organization_id=organization_id, grant_id="mine", amount="10")

    refusal = await refusal_of(
        ledger.billing.GrantCredits(request, metadata=await ledger.key_of(organization_id), timeout=5)
    )

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
