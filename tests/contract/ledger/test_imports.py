from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest

from services.common.uuid7 import parse_uuid7, time_of
from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, refusal_of
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.usage_builders import a_record, a_request, now_in_utc
from tollgate.ledger.v1.account_service_pb2 import PLAN_ENTERPRISE, CreateOrganizationRequest
from tollgate.ledger.v1.billing_service_pb2 import GetBalanceRequest, VerifyBooksRequest
from tollgate.ledger.v1.import_service_pb2 import ImportedRecord, ImportRecordsRequest, ImportRecordsResponse
from tollgate.ledger.v1.usage_pb2 import RECORD_FLAG_IMPORTED, Usage, UsageRecord

RECORDED, DUPLICATE, CONFLICT, INVALID = 1, 2, 3, 4
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


@pytest.fixture
async def organization_id(ledger: WholeLedger) -> str:
    """One that keeps a year."""
    request = CreateOrganizationRequest(display_name="Acme", plan=PLAN_ENTERPRISE, retention_days=365)
    created = await ledger.accounts.CreateOrganization(request, metadata=OPERATOR, timeout=5)
    return str(created.organization.organization_id)


def a_call(source_id: str = "call-1", *, at: datetime | None = None, **fields: Any) -> ImportedRecord:
    """A call as another gateway's export has it: with nothing that is ours."""
    record: UsageRecord = a_record("", at=at, **fields)
    for name in ("request_id", "organization_id", "api_key_id"):
        record.ClearField(name)
    return ImportedRecord(source_id=source_id, record=record)


async def import_calls(
    ledger: WholeLedger, organization_id: str, *calls: ImportedRecord, source: str = "other"
) -> ImportRecordsResponse:
    request = ImportRecordsRequest(organization_id=organization_id, source=source, records=calls)
    response: ImportRecordsResponse = await ledger.imports.ImportRecords(request, metadata=OPERATOR, timeout=60)
    return response


def rows_of(database: Database, query: str, organization_id: str) -> list[Any]:
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query.encode(), (organization_id,)).fetchall()


async def test_imported_calls_show_what_they_cost_here_and_charge_nobody(
    ledger: WholeLedger, organization_id: str, database: Database
) -> None:
    long_ago = now_in_utc() - timedelta(days=200)

    response = await import_calls(ledger, organization_id, a_call(at=long_ago))

    (result,) = response.results
    assert (result.source_id, result.status) == ("call-1", RECORDED)
    assert abs(time_of(parse_uuid7(result.request_id)) - long_ago) < timedelta(milliseconds=1)
    query = (
        "SELECT cost_pico > 0, charged_pico, flags, line_charged FROM ledger.usage_record WHERE organization_id = %s"
    )
    assert rows_of(database, query, organization_id) == [(True, 0, [RECORD_FLAG_IMPORTED], [False] * 3)]
    query = "SELECT request_count, charged_pico FROM ledger.usage_hour WHERE organization_id = %s"
    assert rows_of(database, query, organization_id) == [(1, 0)]
    balance = GetBalanceRequest(organization_id=organization_id)
    assert (await ledger.billing.GetBalance(balance, metadata=OPERATOR, timeout=5)).sequence == "0"
    verify = VerifyBooksRequest(organization_id=organization_id)
    assert (await ledger.billing.VerifyBooks(verify, metadata=OPERATOR, timeout=30)).agree


async def test_importing_the_same_again_records_it_once(ledger: WholeLedger, organization_id: str) -> None:
    calls = [a_call(f"call-{number}", at=now_in_utc() - timedelta(days=number + 1)) for number in range(3)]

    first = await import_calls(ledger, organization_id, *calls)
    again = await import_calls(ledger, organization_id, calls[2], calls[0], calls[0])

    assert [result.status for result in first.results] == [RECORDED] * 3
    assert [result.status for result in again.results] == [DUPLICATE] * 3
    assert again.results[0].request_id == first.results[2].request_id


async def test_one_source_id_stands_for_one_call_of_its_source(ledger: WholeLedger, organization_id: str) -> None:
    moment = now_in_utc() - timedelta(days=1)
    await import_calls(ledger, organization_id, a_call(at=moment))

    other_content = a_call(at=moment, usage=Usage(output_tokens=1))
    changed = await import_calls(ledger, organization_id, other_content)
    elsewhere = await import_calls(ledger, organization_id, other_content, source="another")

    assert (changed.results[0].status, changed.results[0].reason) == (CONFLICT, "request_id belongs to another record")
    assert elsewhere.results[0].status == RECORDED


async def test_calls_are_imported_as_far_back_as_they_would_be_seen(ledger: WholeLedger, organization_id: str) -> None:
    now = now_in_utc()

    response = await import_calls(
        ledger,
        organization_id,
        a_call("in", at=now - YEAR + timedelta(minutes=1)),
        a_call("out", at=now - YEAR - timedelta(microseconds=1)),
        a_call("beside", at=now - timedelta(days=1)),
    )

    assert [result.status for result in response.results] == [RECORDED, INVALID, RECORDED]
    assert (
        response.results[1].reason
        == "record.start_time is older than the 365 days that the organization's retention keeps"
    )


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (a_call(""), "source_id must have 1 to 256 characters"),
        (a_call(at=now_in_utc() + timedelta(hours=1)), "record.start_time is in the future"),
        (ImportedRecord(source_id="x"), "record.start_time is missing"),
        (a_call(status=1_000), "record.status must be from 0 to 999, got 1000"),
        (a_call(usage=Usage(input_tokens=-1)), "record.usage.input_tokens must be from 0 to 1000000000000, got -1"),
        (a_call(flags=[4]), "record.flags must be left out"),
        (a_call(payload_retained=True), "record.payload_retained must be left out"),
        (a_call(funding=7), "record.funding has no value 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_call_that_cannot_be_taken_says_why_and_stops_nobody(
    ledger: WholeLedger, organization_id: str, call: ImportedRecord, reason: str
) -> None:
    response = await import_calls(ledger, organization_id, call, a_call("good"))

    assert [(result.status, result.reason) for result in response.results] == [(INVALID, reason), (RECORDED, "")]


async def test_what_an_import_sends_wrong_is_not_kept_here(
    ledger: WholeLedger, organization_id: str, database: Database
) -> None:
    moment = now_in_utc() - timedelta(days=1)
    await import_calls(ledger, organization_id, a_call(at=moment), a_call("bad", status=1_000))
    await import_calls(ledger, organization_id, a_call(at=moment, status=201))

    with psycopg.connect(database.admin_url) as connection:
        assert connection.execute("SELECT count(*) FROM ledger.rejected_record").fetchone() == (0,)


async def test_a_router_cannot_say_that_a_call_is_not_to_be_charged(ledger: WholeLedger, organization_id: str) -> None:
    request = a_request(a_record(organization_id, flags=[RECORD_FLAG_IMPORTED]))

    response = await ledger.usage.RecordUsage(request, metadata=INSIDE, timeout=5)

    assert (response.results[0].status, response.results[0].reason) == (INVALID, "flags has no value 4")


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"records": []}, "INVALID_REQUEST", "records"),
        ({"source": ""}, "INVALID_REQUEST", "source"),
        ({"source": "a b"}, "INVALID_REQUEST", "source"),
        ({"organization_id": ""}, "INVALID_REQUEST", "organization_id"),
        ({"records": [a_call()] * 1_001}, "TOO_LARGE", "records"),
    ],
)
async def test_an_import_that_makes_no_sense_is_refused_by_its_field(
    ledger: WholeLedger, organization_id: str, fields: dict[str, Any], reason: str, field: str
) -> None:
    values = {"organization_id": organization_id, "source": "other", "records": [a_call()], **fields}

    refusal = await refusal_of(
        ledger.imports.ImportRecords(ImportRecordsRequest(**values), metadata=OPERATOR, timeout=5)
    )

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.metadata["field"] == field


async def test_an_organization_imports_for_itself_and_for_no_other(ledger: WholeLedger, organization_id: str) -> None:
    key = await ledger.key_of(organization_id)
    other = await ledger.organization()

    own = await ledger.imports.ImportRecords(
        ImportRecordsRequest(source="other", records=[a_call()]), metadata=key, timeout=5
    )
    foreign = ImportRecordsRequest(organization_id=other, source="other", records=[a_call()])
    refusal = await refusal_of(ledger.imports.ImportRecords(foreign, metadata=key, timeout=5))

    assert own.results[0].status == RECORDED
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_nothing_is_imported_for_an_organization_that_does_not_exist(ledger: WholeLedger) -> None:
    call = import_calls(ledger, "0199a000-0000-7000-8000-00000000000a", a_call())

    assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND
