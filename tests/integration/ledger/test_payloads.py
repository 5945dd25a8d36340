import os
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from services.ledger.accounts.accounts import Plan
from services.ledger.retention.retention import Kept
from services.ledger.usage.convert_usage import BODY_BYTES_MAX, delivery_from_proto
from services.ledger.usage.records import RecordStatus
from tests.conftest import Database
from tests.retention_builders import DAY, NOON, SteppedLedger, a_stepped_ledger
from tests.usage_builders import a_record, a_request, uuid7_at
from tollgate.ledger.v1.usage_pb2 import Payload, UsageRecord

PAYLOAD = Payload(
    request_body=zlib.compress(b"what was asked"),
    request_content_type="application/json",
    response_body=zlib.compress(b"what was answered"),
    response_content_type="text/event-stream",
    response_truncated=True,
)


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[SteppedLedger]:
    async with a_stepped_ledger(database) as running:
        yield running


def add_organization(ledger: SteppedLedger, plan: Plan = Plan.FREE, retention_days: int = 3) -> str:
    organization_id = ledger.add_organization(plan, retention_days)
    retain(ledger, organization_id, retained=True)
    return organization_id


def retain(ledger: SteppedLedger, organization_id: str, *, retained: bool) -> None:
    statement = "UPDATE ledger.organization SET payload_retained = %s WHERE organization_id = %s"
    ledger.execute(statement, retained, organization_id)


def a_call(organization_id: str, **fields: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "payload_retained": True,
        "payload": PAYLOAD,
        "at": NOON,
        "request_id": uuid7_at(NOON),
    }
    return a_record(organization_id, **values | fields)


def kept(ledger: SteppedLedger, organization_id: str) -> list[Any]:
    query = """
        SELECT request_body, request_content_type, request_truncated,
               response_body, response_content_type, response_truncated
          FROM reporting.payload WHERE organization_id = %s
    """
    return ledger.rows(query, organization_id)


async def test_a_payload_is_kept_as_the_router_compressed_it(ledger: SteppedLedger) -> None:
    organization_id = add_organization(ledger)

    assert await ledger.record(a_call(organization_id)) == [RecordStatus.RECORDED]

    assert kept(ledger, organization_id) == [
        (PAYLOAD.request_body, "application/json", False, PAYLOAD.response_body, "text/event-stream", True)
    ]


@pytest.mark.parametrize("says", ["organization", "record"])
async def test_where_payloads_are_not_retained_none_reaches_the_disk(ledger: SteppedLedger, says: str) -> None:
    organization_id = add_organization(ledger)
    if says == "organization":
        retain(ledger, organization_id, retained=False)

    assert await ledger.record(a_call(organization_id, payload_retained=says != "record")) == [RecordStatus.RECORDED]

    assert kept(ledger, organization_id) == []


async def test_a_record_that_is_set_aside_is_set_aside_without_its_payload(ledger: SteppedLedger) -> None:
    organization_id = add_organization(ledger)
    secret = os.urandom(64)
    payload = Payload(request_body=secret)
    recorded = a_call(organization_id, payload=payload)
    poison = a_call(organization_id, payload=payload, latency_ms=-1)
    conflict = a_call(organization_id, request_id=recorded.request_id, payload=payload, latency_ms=1)

    statuses = [await ledger.record(one) for one in (recorded, poison, conflict)]

    assert statuses == [[RecordStatus.RECORDED], [RecordStatus.INVALID], [RecordStatus.CONFLICT]]
    query = "SELECT count(*) FROM ledger.rejected_record WHERE position(%s::bytea IN record) > 0"
    assert ledger.rows(query, secret) == [(0,)]
    assert len(kept(ledger, organization_id)) == 1


async def test_a_record_is_the_same_with_and_without_its_payload(ledger: SteppedLedger) -> None:
    organization_id = add_organization(ledger)
    record = a_call(organization_id)
    without = UsageRecord.FromString(record.SerializeToString())
    without.ClearField("payload")

    assert await ledger.record(record) == [RecordStatus.RECORDED]
    assert await ledger.record(without) == [RecordStatus.DUPLICATE]
    assert len(kept(ledger, organization_id)) == 1


async def test_a_body_beyond_its_bound_is_refused_with_a_reason(ledger: SteppedLedger) -> None:
    organization_id = add_organization(ledger)
    largest = Payload(request_body=bytes(BODY_BYTES_MAX), response_body=bytes(BODY_BYTES_MAX))
    too_large = a_call(organization_id, payload=Payload(response_body=bytes(BODY_BYTES_MAX + 1)))

    receipt = await ledger.recorder.record(
        delivery_from_proto(a_request(too_large, a_call(organization_id, payload=largest)), NOON)
    )

    assert [(result.status, result.reason) for result in receipt.results] == [
        (RecordStatus.INVALID, "payload.response_body may have at most 262144 bytes, compressed"),
        (RecordStatus.RECORDED, ""),
    ]


async def test_payloads_go_before_their_detail_in_the_same_moment(ledger: SteppedLedger) -> None:
    organization_id = add_organization(ledger)
    await ledger.record(a_call(organization_id), a_call(organization_id, payload=None))

    await ledger.pass_at(NOON + 5 * DAY)

    assert kept(ledger, organization_id) == []
    assert ledger.rows("SELECT to_regclass('ledger.payload_003_20310514')") == [(None,)]
    expiries = ledger.rows(
        "SELECT kind, row_count FROM ledger.expiry WHERE organization_id = %s ORDER BY kind", organization_id
    )
    assert expiries == [(Kept.PAYLOAD, 1), (Kept.DETAIL, 2), (Kept.HOURS, 1)]


async def test_payloads_follow_their_detail_when_a_plan_changes(ledger: SteppedLedger) -> None:
    smaller, larger = add_organization(ledger, Plan.PRO, 90), add_organization(ledger)
    for age in (5, 1):
        moment = NOON - age * DAY
        ledger.clock.now = moment
        for organization_id in (smaller, larger):
            await ledger.record(a_call(organization_id, at=moment, request_id=uuid7_at(moment)))
    ledger.clock.now = NOON
    ledger.change_plan(smaller, Plan.FREE, 3)
    ledger.change_plan(larger, Plan.PRO, 90)

    await ledger.pass_at(NOON + timedelta(minutes=1))

    query = "SELECT retention_class, start_time FROM ledger.payload WHERE organization_id = %s"
    assert ledger.rows(query, smaller) == [(3, NOON - DAY)]
    assert ledger.rows(query, larger) == [(90, NOON - DAY)]


async def test_a_payload_is_seen_by_its_organization_and_nobody_else(ledger: SteppedLedger, database: Database) -> None:
    organization_id, other = add_organization(ledger), add_organization(ledger)
    await ledger.record(a_call(organization_id))

    with psycopg.connect(database.reporting_url) as connection:
        for reader, count in ((organization_id, 1), (other, 0)):
            connection.execute(f"SET LOCAL tollgate.organization_id = '{reader}'")
            assert connection.execute("SELECT count(*) FROM reporting.payload").fetchone() == (count,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM ledger.payload_003_20310514")
