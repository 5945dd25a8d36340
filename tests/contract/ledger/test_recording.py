from collections.abc import AsyncIterator
from uuid import uuid4

import grpc
import pytest

from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, refusal_of
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.usage_builders import a_record, a_request
from tollgate.ledger.v1.billing_service_pb2 import GetBalanceRequest
from tollgate.ledger.v1.usage_service_pb2 import (
    RECORD_STATUS_DUPLICATE,
    RECORD_STATUS_INVALID,
    RECORD_STATUS_RECORDED,
    RecordUsageRequest,
)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


async def test_a_delivery_is_answered_record_by_record_in_the_order_sent(ledger: WholeLedger) -> None:
    organization_id = await ledger.organization()
    good, bad = a_record(organization_id), a_record(organization_id, project_id="not a project")
    request = a_request(good, bad, producer_id=str(uuid4()))

    first = await ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5)
    again = await ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5)

    assert [(result.request_id, result.status, result.reason) for result in first.results] == [
        (good.request_id, RECORD_STATUS_RECORDED, ""),
        (bad.request_id, RECORD_STATUS_INVALID, "project_id must be 1 to 64 letters, digits or ._:-"),
    ]
    assert [result.status for result in again.results] == [RECORD_STATUS_DUPLICATE] * 2
    assert (first.committed_sequence, again.committed_sequence) == (2, 2)


async def test_a_call_is_charged_at_the_catalogues_price(ledger: WholeLedger) -> None:
    organization_id = await ledger.organization()

    await ledger.usage.RecordUsage(a_request(a_record(organization_id)), metadata=INSIDE, timeout=5)

    balance = await ledger.billing.GetBalance(
        GetBalanceRequest(organization_id=organization_id), metadata=OPERATOR, timeout=5
    )
    # gpt-4o: 400 in at 2.50, 600 cached at 1.25 and 200 out at 10 USD per million.
    assert balance.receivable == "0.00375"


async def test_a_gap_is_refused_with_the_sequence_to_go_on_from(ledger: WholeLedger) -> None:
    organization_id = await ledger.organization()
    request = a_request(a_record(organization_id), producer_id=str(uuid4()), first_sequence=5)

    refusal = await refusal_of(ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_GAP")
    assert refusal.metadata["committed_sequence"] == "0"


async def test_a_delivery_has_at_most_a_thousand_records(ledger: WholeLedger) -> None:
    request = RecordUsageRequest(records=[a_record(str(uuid4()))] * 1_001)

    refusal = await refusal_of(ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE")
    assert refusal.metadata == {"field": "records", "maximum": "1000"}


async def test_only_services_may_record(ledger: WholeLedger) -> None:
    organization_id = await ledger.organization()
    request = a_request(a_record(organization_id))

    refusal = await refusal_of(ledger.usage.RecordUsage(request, metadata=OPERATOR, timeout=5))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
