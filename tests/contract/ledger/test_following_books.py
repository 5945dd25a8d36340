"""What finance and billing systems ask of the books, over a real channel."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from services.ledger.convert_values import time_to_proto
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Metadata, refusal_of
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.usage_builders import a_record, a_request, now_in_utc
from tollgate.ledger.v1 import billing_service_pb2 as wire
from tollgate.ledger.v1.price_service_pb2 import (
    PRICE_UNIT_CACHED_INPUT_TOKEN,
    PRICE_UNIT_INPUT_TOKEN,
    Prices,
    PublishPriceRequest,
    UnitPrice,
)
from tollgate.ledger.v1.usage_pb2 import UsageRecord

TODAY = f"{now_in_utc():%Y-%m-%d}"


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


@pytest.fixture
async def organization_id(ledger: WholeLedger) -> str:
    return await ledger.organization()


async def ask(ledger: WholeLedger, method: str, **fields: Any) -> Any:
    return await ask_with(OPERATOR, ledger, method, **fields)


async def ask_with(metadata: Metadata, ledger: WholeLedger, method: str, **fields: Any) -> Any:
    request = getattr(wire, f"{method}Request")(**fields)
    return await getattr(ledger.billing, method)(request, metadata=metadata, timeout=30)


async def grant(ledger: WholeLedger, organization_id: str, **fields: Any) -> Any:
    values = {"organization_id": organization_id, "grant_id": "paid", "amount": "10", **fields}
    return await ask(ledger, "GrantCredits", **values)


async def record(ledger: WholeLedger, *records: UsageRecord) -> None:
    await ledger.usage.RecordUsage(a_request(*records), metadata=INSIDE, timeout=10)


async def test_entries_are_followed_from_where_one_was_left(ledger: WholeLedger, organization_id: str) -> None:
    for number in range(5):
        await grant(ledger, organization_id, grant_id=f"grant-{number}")
    seen, after = [], ""
    while entries := (page := await follow(ledger, organization_id, after)).entries:
        seen += [(entry.sequence, entry.reference, entry.balance) for entry in entries]
        after = page.last_sequence

    assert seen == [(str(n + 1), f"grant-{n}", str(10 * (n + 1))) for n in range(5)]
    assert page.last_sequence == "5"
    await record(ledger, a_record(organization_id))
    (entry,) = (await follow(ledger, organization_id, after)).entries
    assert (entry.sequence, entry.kind) == ("6", wire.LEDGER_ENTRY_KIND_USAGE)
    assert {posting.account: posting.amount for posting in entry.postings} == {
        wire.LEDGER_ACCOUNT_PREPAID: "-0.00375",
        wire.LEDGER_ACCOUNT_REVENUE: "0.00375",
    }


async def follow(ledger: WholeLedger, organization_id: str, after: str) -> Any:
    return await ask(ledger, "ListLedgerEntries", organization_id=organization_id, after=after, limit="2")


async def test_grants_are_listed_the_newest_first_with_what_remains(ledger: WholeLedger, organization_id: str) -> None:
    ends = now_in_utc() + timedelta(days=1)
    await grant(ledger, organization_id, amount="1")
    await grant(ledger, organization_id, grant_id="gift", amount="0.001", kind=2, expire_time=ends)
    await record(ledger, a_record(organization_id))

    first = await ask(ledger, "ListCreditGrants", organization_id=organization_id, limit="1")
    rest = await ask(
        ledger, "ListCreditGrants", organization_id=organization_id, limit="1", page_token=first.next_page_token
    )

    (gift,), (paid,) = first.credit_grants, rest.credit_grants
    assert (gift.grant_id, gift.amount, gift.remaining, gift.HasField("expire_time")) == ("gift", "0.001", "0", True)
    assert (paid.grant_id, paid.remaining, paid.HasField("expire_time")) == ("paid", "0.99725", False)
    assert (first.next_page_token != "", rest.next_page_token) == (True, "")


async def test_a_refund_is_booked_once_and_leaves_the_balance(ledger: WholeLedger, organization_id: str) -> None:
    await grant(ledger, organization_id)
    values = {"organization_id": organization_id, "refund_id": "back", "amount": "4", "kind": 1, "grant_id": "paid"}

    first, again = [await ask(ledger, "RefundCredits", **values) for _ in range(2)]

    assert first == again
    assert (first.balance, first.sequence, first.kind) == ("6", "2", wire.REFUND_KIND_UNSPENT)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": 0}, "kind"),
        ({"kind": 9}, "kind"),
        ({"amount": "0"}, "amount"),
        ({"amount": "11"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"refund_id": ""}, "refund_id"),
        ({"grant_id": ""}, "grant_id"),
        ({"credit_kind": 1}, "credit_kind"),
        ({"reason": "x" * 257}, "reason"),
        ({"kind": 2}, "grant_id"),
        ({"kind": 2, "grant_id": ""}, "reason"),
        ({"kind": 2, "grant_id": "", "reason": "wrong"}, "amount"),
        ({"kind": 2, "grant_id": "", "reason": "wrong", "credit_kind": 3}, "credit_kind"),
        ({"organization_id": ""}, "organization_id"),
    ],
)
async def test_a_refund_that_makes_no_sense_is_refused_by_its_field(
    ledger: WholeLedger, organization_id: str, fields: dict[str, Any], field: str
) -> None:
    await grant(ledger, organization_id)
    values = {"organization_id": organization_id, "refund_id": "back", "amount": "4", "kind": 1, "grant_id": "paid"}

    refusal = await refusal_of(ask(ledger, "RefundCredits", **{**values, **fields}))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.metadata["field"] == field


async def test_a_statement_shows_gross_discount_net_and_the_rounding(ledger: WholeLedger, organization_id: str) -> None:
    await grant(ledger, organization_id)
    calls = [a_record(organization_id) for _ in range(3)]
    await record(ledger, *calls, a_record(organization_id, funding=2), a_record(organization_id, model="unknown"))

    statement = await ask(ledger, "GetStatement", organization_id=organization_id, **{"from": TODAY, "to": TODAY})

    lines = [(line.funding, line.line, line.quantity, line.amounts.charged) for line in statement.lines]
    assert lines == [
        (1, "INPUT", "1200", "0.003"),
        (1, "CACHED_INPUT", "1800", "0.00225"),
        (1, "OUTPUT", "600", "0.006"),
        (2, "INPUT", "400", "0"),
        (2, "CACHED_INPUT", "600", "0"),
        (2, "OUTPUT", "200", "0"),
    ]
    total = statement.total
    assert (total.gross, total.discount, total.net, total.charged) == ("0.015", "0", "0.015", "0.01125")
    assert (statement.charged_rounded, statement.rounding_residual) == ("0.01", "0.00125")
    balance = statement.balance
    assert (balance.opening, balance.granted_prepaid, balance.usage, balance.closing, balance.timing_difference) == (
        "0",
        "10",
        "0.01125",
        "9.98875",
        "0",
    )
    assert (statement.unpriced_count, balance.first_sequence, balance.last_sequence) == ("1", "1", "2")


async def test_a_month_is_a_period(ledger: WholeLedger, organization_id: str) -> None:
    statement = await ask(ledger, "GetStatement", organization_id=organization_id, period="2024-02")

    assert (getattr(statement, "from"), statement.to) == ("2024-02-01", "2024-02-29")
    assert (statement.total.charged, statement.balance.closing, list(statement.lines)) == ("0", "0", [])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "period"),
        ({"period": "2026-13"}, "period"),
        ({"period": "2026"}, "period"),
        ({"period": "2026-03", "to": "2026-03-31"}, "period"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "to"),
        ({"from": "2026-03-02"}, "to"),
        ({"to": "2026-03-02"}, "from"),
        ({"from": "2025-03-01", "to": "2026-03-02"}, "to"),
        ({"from": "2026-02-29", "to": "2026-03-02"}, "from"),
    ],
)
async def test_a_period_that_makes_no_sense_is_refused_by_its_parameter(
    ledger: WholeLedger, organization_id: str, fields: dict[str, str], field: str
) -> None:
    refusal = await refusal_of(ask(ledger, "GetStatement", organization_id=organization_id, **fields))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.metadata["field"] == field


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("ListLedgerEntries", {"after": "-1"}, "after"),
        ("ListLedgerEntries", {"after": "x"}, "after"),
        ("ListLedgerEntries", {"limit": "1001"}, "limit"),
        ("ListCreditGrants", {"limit": "0"}, "limit"),
        ("ListCreditGrants", {"page_token": "x"}, "page_token"),
        ("VerifyBooks", {"organization_id": "acme"}, "organization_id"),
        ("GetBalance", {"organization_id": "acme"}, "organization_id"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_by_its_parameter(
    ledger: WholeLedger, organization_id: str, method: str, fields: dict[str, str], field: str
) -> None:
    refusal = await refusal_of(ask(ledger, method, **{"organization_id": organization_id, **fields}))

    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_REQUEST", field)


QUESTIONS = [
    ("ListLedgerEntries", {}),
    ("ListCreditGrants", {}),
    ("GetStatement", {"period": "2026-03"}),
    ("VerifyBooks", {}),
]


@pytest.mark.parametrize(("method", "fields"), QUESTIONS)
async def test_an_organization_sees_its_own_books_and_no_other_s(
    ledger: WholeLedger, organization_id: str, method: str, fields: dict[str, str]
) -> None:
    key = await ledger.key_of(organization_id)
    other_id = await ledger.organization()

    await ask_with(key, ledger, method, **fields)
    refusal = await refusal_of(ask_with(key, ledger, method, organization_id=other_id, **fields))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(("method", "fields"), QUESTIONS)
async def test_an_organization_that_does_not_exist_has_no_books(
    ledger: WholeLedger, method: str, fields: dict[str, str]
) -> None:
    nobody = "0199a000-0000-7000-8000-00000000000a"

    assert (await refusal_of(ask(ledger, method, organization_id=nobody, **fields))).code is grpc.StatusCode.NOT_FOUND


async def test_an_operator_verifies_all_books_at_once(ledger: WholeLedger, organization_id: str) -> None:
    await record(ledger, a_record(organization_id), a_record(organization_id, payload_retained=True))

    findings = await ask(ledger, "VerifyBooks")

    assert findings.agree
    assert list(findings.differences) == []
    assert int(findings.verified.records) >= 2


async def test_a_price_that_is_published_charges_the_calls_that_waited_for_it(
    ledger: WholeLedger, organization_id: str
) -> None:
    await grant(ledger, organization_id)
    await record(ledger, a_record(organization_id, model="brand-new"))
    request = PublishPriceRequest(
        provider="openai",
        model="brand-new",
        valid_from=time_to_proto(now_in_utc() - timedelta(days=1)),
        prices=Prices(
            unit_prices=[
                UnitPrice(unit=PRICE_UNIT_INPUT_TOKEN, price="2.5", per=10**6),
                UnitPrice(unit=PRICE_UNIT_CACHED_INPUT_TOKEN, price="1.25", per=10**6),
            ]
        ),
    )
    await ledger.prices.PublishPrice(request, metadata=OPERATOR, timeout=5)

    entries: list[Any] = []
    for _ in range(400):
        entries = (await follow(ledger, organization_id, "1")).entries
        if entries:
            break
        await asyncio.sleep(0.05)
    (entry,) = entries
    assert (entry.kind, entry.balance) == (wire.LEDGER_ENTRY_KIND_PRICING, "9.99825")
    assert (await ask(ledger, "VerifyBooks", organization_id=organization_id)).agree
