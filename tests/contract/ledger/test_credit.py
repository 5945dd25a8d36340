"""Leases over a real channel and a real database: what is granted, what it holds, and what frees it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY

from services.common.money import pico_from_usd
from services.ledger.leases.credit import Credit
from services.ledger.leases.leases import LEASE_SECONDS
from services.ledger.storage.writer import DatabaseWriter
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, refusal_of
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.usage_builders import COST_PICO, a_record, a_request
from tollgate.ledger.v1.account_service_pb2 import CreateApiKeyRequest, UpdateOrganizationRequest
from tollgate.ledger.v1.billing_service_pb2 import (
    REFUND_KIND_UNSPENT,
    GetBalanceRequest,
    GetBalanceResponse,
    GrantCreditsRequest,
    RefundCreditsRequest,
)
from tollgate.ledger.v1.credit_service_pb2 import (
    LEASE_OUTCOME_GRANTED,
    LEASE_OUTCOME_HELD,
    LEASE_OUTCOME_INSUFFICIENT,
    LEASE_OUTCOME_LIMIT_REACHED,
    LEASE_OUTCOME_ORGANIZATION_LIMIT_REACHED,
    AcquireLeaseRequest,
    AcquireLeaseResponse,
    GetPriceBoundsRequest,
    LeaseReturn,
    PricedModel,
    ReleaseLeaseRequest,
    ReleaseProducerRequest,
    RenewLeaseRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import (
    SPENDING_PERIOD_DAY,
    SPENDING_PERIOD_MONTH,
    SPENDING_PERIOD_TOTAL,
    SpendingLimit,
)
from tollgate.ledger.v1.usage_pb2 import OUTCOME_UNKNOWN, UsageRecord


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


@pytest.fixture
async def acme(ledger: WholeLedger) -> str:
    """An organization with 1 USD."""
    organization_id = await ledger.organization()
    request = GrantCreditsRequest(organization_id=organization_id, grant_id="first", amount="1")
    await ledger.billing.GrantCredits(request, metadata=OPERATOR, timeout=5)
    return organization_id


async def acquire(ledger: WholeLedger, organization_id: str, needed: str, **fields: Any) -> AcquireLeaseResponse:
    values = {"lease_id": str(uuid4()), "producer_id": str(uuid4()), "epoch": 1, **fields}
    request = AcquireLeaseRequest(organization_id=organization_id, needed=needed, **values)
    answer: AcquireLeaseResponse = await ledger.credit.AcquireLease(request, metadata=INSIDE, timeout=5)
    return answer


async def give_back(ledger: WholeLedger, organization_id: str, lease_id: str, returned: str) -> str:
    """What the lease holds then."""
    returns = [LeaseReturn(lease_id=lease_id, returned=returned)]
    request = ReleaseLeaseRequest(organization_id=organization_id, returns=returns)
    answer = await ledger.credit.ReleaseLease(request, metadata=INSIDE, timeout=5)
    return str(answer.leases[0].held)


async def balance_of(ledger: WholeLedger, organization_id: str) -> GetBalanceResponse:
    request = GetBalanceRequest(organization_id=organization_id)
    balance: GetBalanceResponse = await ledger.billing.GetBalance(request, metadata=OPERATOR, timeout=5)
    return balance


async def held(ledger: WholeLedger, organization_id: str) -> str:
    return (await balance_of(ledger, organization_id)).held


async def record(ledger: WholeLedger, *records: UsageRecord, **fields: Any) -> None:
    await ledger.usage.RecordUsage(a_request(*records, **fields), metadata=INSIDE, timeout=5)


async def test_a_lease_is_set_aside_within_the_balance(ledger: WholeLedger, acme: str) -> None:
    granted = await acquire(ledger, acme, "0.01")

    balance = await balance_of(ledger, acme)
    assert (granted.outcome, granted.granted, granted.lease_seconds) == (LEASE_OUTCOME_GRANTED, "0.1", 60)
    assert (balance.balance, balance.held) == ("1", "0.1")


async def test_asking_again_for_the_same_lease_grants_it_once(ledger: WholeLedger, acme: str) -> None:
    lease_id = str(uuid4())

    first, second = [await acquire(ledger, acme, "0.01", lease_id=lease_id) for _ in range(2)]

    assert first.granted == second.granted
    assert await held(ledger, acme) == "0.1"


async def test_leases_asked_for_at_once_never_exceed_the_balance(ledger: WholeLedger, acme: str) -> None:
    answers = await asyncio.gather(*(acquire(ledger, acme, "0.3") for _ in range(20)))

    outcomes = [answer.outcome for answer in answers]
    assert (outcomes.count(LEASE_OUTCOME_GRANTED), outcomes.count(LEASE_OUTCOME_HELD)) == (3, 17)
    assert await held(ledger, acme) == "0.9"


async def test_more_than_there_is_is_refused_for_good(ledger: WholeLedger, acme: str) -> None:
    refused = await acquire(ledger, acme, "1.000000000001")

    assert (refused.outcome, refused.granted, refused.available) == (LEASE_OUTCOME_INSUFFICIENT, "0", "1")


async def test_an_organization_without_credit_gets_no_lease(ledger: WholeLedger) -> None:
    assert (await acquire(ledger, await ledger.organization(), "0.01")).outcome == LEASE_OUTCOME_INSUFFICIENT


async def test_a_recorded_call_frees_what_it_reserved_and_costs_what_it_cost(ledger: WholeLedger, acme: str) -> None:
    lease_id = str(uuid4())
    await acquire(ledger, acme, "0.5", lease_id=lease_id)
    call = a_record(acme, lease_id=lease_id, reserved="0.2")

    await record(ledger, call)
    await record(ledger, call)

    balance = await balance_of(ledger, acme)
    assert (balance.balance, balance.held) == ("0.99625", "0.3")


async def test_a_call_that_nobody_knows_the_end_of_frees_its_reservation(ledger: WholeLedger, acme: str) -> None:
    lease_id = str(uuid4())
    await acquire(ledger, acme, "0.5", lease_id=lease_id)
    lost = a_record(acme, lease_id=lease_id, reserved="0.5", outcome=OUTCOME_UNKNOWN)
    lost.ClearField("usage")
    lost.ClearField("usage_source")

    await record(ledger, lost)

    balance = await balance_of(ledger, acme)
    assert (balance.balance, balance.held) == ("1", "0")


async def test_a_record_that_cannot_be_taken_frees_its_reservation(ledger: WholeLedger, acme: str) -> None:
    lease_id = str(uuid4())
    await acquire(ledger, acme, "0.5", lease_id=lease_id)

    await record(ledger, a_record(acme, lease_id=lease_id, reserved="0.5", project_id="no such name"))

    assert await held(ledger, acme) == "0"


async def test_what_is_given_back_is_a_total_so_that_repeating_it_changes_nothing(
    ledger: WholeLedger, acme: str
) -> None:
    lease_id = str(uuid4())
    await acquire(ledger, acme, "0.5", lease_id=lease_id)

    told = [await give_back(ledger, acme, lease_id, total) for total in ("0.2", "0.2", "0.1", "0.5", "7")]

    assert told == ["0.3", "0.3", "0.3", "0", "0"]


async def test_what_is_given_back_while_asking_can_be_leased_at_once(ledger: WholeLedger, acme: str) -> None:
    lease_id = str(uuid4())
    await acquire(ledger, acme, "1", lease_id=lease_id)

    again = await acquire(ledger, acme, "1", returns=[LeaseReturn(lease_id=lease_id, returned="1", closed=True)])

    assert again.outcome == LEASE_OUTCOME_GRANTED
    assert await held(ledger, acme) == "1"


async def test_renewing_prolongs_a_lease_and_tells_what_is_not_in_force(ledger: WholeLedger, acme: str) -> None:
    lease_id, unknown = str(uuid4()), str(uuid4())
    await acquire(ledger, acme, "0.5", lease_id=lease_id)

    request = RenewLeaseRequest(organization_id=acme, lease_ids=[lease_id, unknown])
    renewed = await ledger.credit.RenewLease(request, metadata=INSIDE, timeout=5)

    assert list(renewed.lease_ids) == [lease_id]


async def test_when_a_log_has_come_whole_its_earlier_lives_hold_nothing_and_get_nothing(
    ledger: WholeLedger, acme: str
) -> None:
    producer_id = str(uuid4())
    for epoch in (1, 2, 3):
        await acquire(ledger, acme, "0.1", producer_id=producer_id, epoch=epoch)

    request = ReleaseProducerRequest(producer_id=producer_id, before_epoch=3)
    freed = await ledger.credit.ReleaseProducer(request, metadata=INSIDE, timeout=5)
    again = await ledger.credit.ReleaseProducer(request, metadata=INSIDE, timeout=5)

    assert (freed.lease_count, freed.released, again.lease_count) == (2, "0.2", 0)
    assert await held(ledger, acme) == "0.1"
    refusal = await refusal_of(acquire(ledger, acme, "0.1", producer_id=producer_id, epoch=2))
    assert refusal.metadata["field"] == "epoch"


async def test_time_alone_frees_nothing_until_the_grace_is_over(
    ledger: WholeLedger, acme: str, database: Database
) -> None:
    await acquire(ledger, acme, "0.5")
    moment = datetime.now(UTC)
    writer = DatabaseWriter(database.ledger_url)
    credit = Credit(writer, clock=lambda: moment, grace=timedelta(hours=1))

    moment += timedelta(minutes=59)
    await credit.make_pass()
    overdue = await held(ledger, acme)
    moment += timedelta(minutes=3)
    lapsed = await credit.make_pass()
    writer.close()

    assert overdue == "0.5"
    assert pico_from_usd("0.5") in [one.lapsed_pico for one in lapsed if one.organization_id == acme]
    assert await held(ledger, acme) == "0"


async def test_a_lease_never_outlives_its_time_without_a_trace(
    ledger: WholeLedger, acme: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    lease_ids = [str(uuid4()) for _ in range(2)]
    for lease_id in lease_ids:
        await acquire(ledger, acme, "0.25", lease_id=lease_id)
    moment = datetime.now(UTC)
    writer = DatabaseWriter(database.ledger_url)
    credit = Credit(writer, clock=lambda: moment, grace=timedelta(hours=1))

    moment += timedelta(seconds=LEASE_SECONDS + 1)
    overdue = []
    for returned in ("0", "0.25"):
        await give_back(ledger, acme, lease_ids[0], returned)
        await credit.make_pass()
        names = ("tollgate_ledger_leases_overdue", "tollgate_ledger_leases_overdue_usd")
        overdue.append([REGISTRY.get_sample_value(name) or 0.0 for name in names])
    moment += timedelta(hours=1)
    await credit.make_pass()
    writer.close()
    with psycopg.connect(database.admin_url) as connection:
        query = "SELECT lapsed_pico FROM ledger.lease WHERE lease_id = %s"
        lapsed_pico = connection.execute(query, (lease_ids[1],)).fetchone()

    # What it holds beyond its time is counted, the one that was given back no more.
    assert overdue[0][0] - overdue[1][0] == 1
    assert overdue[0][1] - overdue[1][1] == pytest.approx(0.25)
    # What is freed in the end is said aloud, and kept for whoever asks what happened.
    said = [entry for entry in caplog.records if getattr(entry, "lease_id", "") in lease_ids]
    assert [(entry.levelname, entry.lease_id, entry.lapsed) for entry in said] == [("ERROR", lease_ids[1], "0.25")]  # type: ignore[attr-defined]
    assert lapsed_pico == (pico_from_usd("0.25"),)


async def test_credit_that_ends_leaves_what_running_calls_have_reserved(
    ledger: WholeLedger, database: Database
) -> None:
    organization_id, lease_id = await ledger.organization(), str(uuid4())
    request = GrantCreditsRequest(organization_id=organization_id, grant_id="short", amount="1")
    request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    await ledger.billing.GrantCredits(request, metadata=OPERATOR, timeout=5)
    await acquire(ledger, organization_id, "0.5", lease_id=lease_id)

    await asyncio.sleep(2.5)
    await record(ledger, a_record(organization_id, lease_id=lease_id, reserved="0.5"))
    await asyncio.sleep(2)

    balance = await balance_of(ledger, organization_id)
    assert (balance.balance, balance.receivable, balance.held) == ("0", "0", "0")
    with psycopg.connect(database.admin_url) as connection:
        query = "SELECT account, amount_pico FROM ledger.balance WHERE organization_id = %s ORDER BY 1"
        accounts: dict[int, int] = dict(connection.execute(query, (organization_id,)).fetchall())
    assert accounts[1] == 0
    assert (accounts[5], accounts[12]) == (COST_PICO, pico_from_usd("1") - COST_PICO)


async def test_what_leases_hold_is_not_paid_out(ledger: WholeLedger, acme: str) -> None:
    await acquire(ledger, acme, "0.6")

    request = RefundCreditsRequest(
        organization_id=acme, refund_id="all", kind=REFUND_KIND_UNSPENT, grant_id="first", amount="0.5"
    )
    refusal = await refusal_of(ledger.billing.RefundCredits(request, metadata=OPERATOR, timeout=5))

    assert refusal.metadata["field"] == "amount"


async def test_a_key_leases_no_more_than_its_limit_leaves_it(ledger: WholeLedger, acme: str) -> None:
    limit = SpendingLimit(amount="0.01", period=SPENDING_PERIOD_DAY)
    request = CreateApiKeyRequest(organization_id=acme, spending_limit=limit)
    created = await ledger.accounts.CreateApiKey(request, metadata=OPERATOR, timeout=5)
    key = created.api_key.api_key_id
    lease_id = str(uuid4())

    first = await acquire(ledger, acme, "0.008", api_key_id=key, lease_id=lease_id)
    while_held = await acquire(ledger, acme, "0.003", api_key_id=key)
    await record(ledger, a_record(acme, api_key_id=key, lease_id=lease_id, reserved="0.008"))
    too_much = await acquire(ledger, acme, "0.00625000001", api_key_id=key)
    all_that_is_left = await acquire(ledger, acme, "0.00625", api_key_id=key)

    outcomes = [one.outcome for one in (first, while_held, too_much, all_that_is_left)]
    assert outcomes == [
        LEASE_OUTCOME_GRANTED,
        LEASE_OUTCOME_HELD,
        LEASE_OUTCOME_LIMIT_REACHED,
        LEASE_OUTCOME_GRANTED,
    ]


async def test_calls_that_an_own_key_paid_for_do_not_count_towards_a_limit(ledger: WholeLedger, acme: str) -> None:
    limit = SpendingLimit(amount="0.001", period=SPENDING_PERIOD_DAY)
    request = CreateApiKeyRequest(organization_id=acme, spending_limit=limit)
    created = await ledger.accounts.CreateApiKey(request, metadata=OPERATOR, timeout=5)
    key = created.api_key.api_key_id

    await record(ledger, a_record(acme, api_key_id=key, funding=2))

    assert (await acquire(ledger, acme, "0.001", api_key_id=key)).outcome == LEASE_OUTCOME_GRANTED


async def limit_organization(ledger: WholeLedger, organization_id: str, amount: str, period: Any) -> None:
    limit = SpendingLimit(amount=amount, period=period)
    request = UpdateOrganizationRequest(organization_id=organization_id, spending_limit=limit)
    await ledger.accounts.UpdateOrganization(request, metadata=OPERATOR, timeout=5)


async def limited_key(ledger: WholeLedger, organization_id: str, amount: str, period: Any) -> str:
    limit = SpendingLimit(amount=amount, period=period)
    request = CreateApiKeyRequest(organization_id=organization_id, spending_limit=limit)
    created = await ledger.accounts.CreateApiKey(request, metadata=OPERATOR, timeout=5)
    return str(created.api_key.api_key_id)


async def test_an_organization_leases_no_more_than_its_limit_leaves_all_its_keys_together(
    ledger: WholeLedger, acme: str
) -> None:
    await limit_organization(ledger, acme, "0.01", SPENDING_PERIOD_MONTH)
    key = await limited_key(ledger, acme, "0.5", SPENDING_PERIOD_DAY)
    lease_id = str(uuid4())

    first = await acquire(ledger, acme, "0.008", lease_id=lease_id)
    while_held = await acquire(ledger, acme, "0.003", api_key_id=key)
    await record(ledger, a_record(acme, lease_id=lease_id, reserved="0.008"))
    too_much = await acquire(ledger, acme, "0.00625000001", api_key_id=key)
    all_that_is_left = await acquire(ledger, acme, "0.00625", api_key_id=key)

    outcomes = [one.outcome for one in (first, while_held, too_much, all_that_is_left)]
    assert outcomes == [
        LEASE_OUTCOME_GRANTED,
        LEASE_OUTCOME_HELD,
        LEASE_OUTCOME_ORGANIZATION_LIMIT_REACHED,
        LEASE_OUTCOME_GRANTED,
    ]
    assert too_much.available == "0.00625"


async def test_a_limit_that_is_lowered_raised_or_lifted_holds_for_the_next_lease(
    ledger: WholeLedger, acme: str
) -> None:
    outcomes = []
    for amount in ("0", "0.02"):
        await limit_organization(ledger, acme, amount, SPENDING_PERIOD_TOTAL)
        outcomes.append((await acquire(ledger, acme, "0.01")).outcome)
    lifting = UpdateOrganizationRequest(organization_id=acme, clear_spending_limit=True)
    await ledger.accounts.UpdateOrganization(lifting, metadata=OPERATOR, timeout=5)
    outcomes.append((await acquire(ledger, acme, "0.9")).outcome)

    assert outcomes == [LEASE_OUTCOME_ORGANIZATION_LIMIT_REACHED, LEASE_OUTCOME_GRANTED, LEASE_OUTCOME_GRANTED]


@pytest.mark.parametrize("of_key", [True, False], ids=["of a key", "of an organization"])
async def test_a_limit_counts_the_calls_that_began_in_its_period(ledger: WholeLedger, acme: str, of_key: bool) -> None:
    now = datetime.now(UTC)
    left = {SPENDING_PERIOD_DAY: "0.01", SPENDING_PERIOD_TOTAL: "0.00625"}
    # In the first days of a month, two days ago was in the one before.
    left[SPENDING_PERIOD_MONTH] = "0.00625" if now.day > 2 else "0.01"
    for period, most in left.items():
        key = await limited_key(ledger, acme, "0.01", period) if of_key else ""
        if not of_key:
            await limit_organization(ledger, acme, "0.01", period)
        if of_key or period == SPENDING_PERIOD_DAY:
            values: dict[str, Any] = {"api_key_id": key} if of_key else {}
            await record(ledger, a_record(acme, at=now - timedelta(days=2), **values))

        refused = await acquire(ledger, acme, "0.02", api_key_id=key)

        assert refused.available == most


async def test_whoever_calls_at_once_no_limit_is_overspent(ledger: WholeLedger, acme: str) -> None:
    await limit_organization(ledger, acme, "0.05", SPENDING_PERIOD_DAY)
    keys = [await limited_key(ledger, acme, "0.03", SPENDING_PERIOD_TOTAL) for _ in range(2)]
    spent: Counter[str] = Counter()

    async def call(number: int) -> None:
        """One that costs all it has reserved, as a record says a little later."""
        key, lease_id = [*keys, ""][number % 3], str(uuid4())
        reserved = "0.00375"
        granted = await acquire(ledger, acme, reserved, api_key_id=key, lease_id=lease_id)
        if granted.outcome == LEASE_OUTCOME_GRANTED:
            spent[key] += COST_PICO
            values: dict[str, Any] = {"api_key_id": key} if key else {}
            await record(ledger, a_record(acme, lease_id=lease_id, reserved=granted.granted, **values))

    await asyncio.gather(*(call(number) for number in range(60)))

    assert max(spent[key] for key in keys) <= pico_from_usd("0.03")
    # Thirteen calls of 0.00375 fit into it.
    assert spent.total() == 13 * COST_PICO


async def test_a_price_bound_is_the_dearest_of_every_kind(ledger: WholeLedger, acme: str) -> None:
    request = GetPriceBoundsRequest(
        organization_id=acme,
        models=[PricedModel(provider="openai", model="gpt-4o"), PricedModel(provider="openai", model="nobody-knows")],
    )
    answer = await ledger.credit.GetPriceBounds(request, metadata=INSIDE, timeout=5)

    known, unknown = answer.bounds
    assert known.priced
    assert float(known.input_token) >= 0.0000025
    assert float(known.output_token) >= 0.00001
    assert (unknown.priced, unknown.output_token, unknown.storage_token) == (False, "0", "0.00000001")
