from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest

from development.addresses import Addresses
from services.common.authentication import Scope, hash_key
from services.common.database import open_database
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.key_store import DatabaseKeyDirectory
from services.common.uuid7 import new_uuid7
from services.ledger.retention.servicer_retention import RetentionServicer
from tests.conftest import Database
from tests.contract.ledger.accounts_server import SERVICE_TOKEN, Metadata, bearer, refusal_of
from tests.retention_builders import DAY, NOON, SteppedLedger, a_stepped_ledger
from tollgate.ledger.v1 import retention_service_pb2, retention_service_pb2_grpc
from tollgate.ledger.v1.retention_service_pb2 import (
    KEPT_KIND_DETAIL,
    KEPT_KIND_HOURS,
    ListExpiriesRequest,
    ListRetentionProblemsRequest,
)


@dataclass(frozen=True, slots=True)
class Retention:
    """The service on a channel, over a ledger whose clock is stepped."""

    ledger: SteppedLedger
    stub: Any

    def key(self, scope: Scope, organization_id: str | None = None) -> Metadata:
        secret = f"tg_{uuid4()}"
        self.ledger.execute(
            """
            INSERT INTO ledger.api_key
                   (key_hash, api_key_id, scope, organization_id, project_id, read_only, display_name, create_time)
            VALUES (%s, %s, %s, %s, NULL, false, '', now())
            """,
            hash_key(secret),
            new_uuid7(),
            int(scope),
            organization_id,
        )
        return bearer(secret)

    async def expiries(self, key: Metadata, **fields: str) -> Any:
        return await self.stub.ListExpiries(ListExpiriesRequest(**fields), metadata=key, timeout=5)

    async def problems(self, key: Metadata, **fields: str) -> Any:
        return await self.stub.ListRetentionProblems(ListRetentionProblemsRequest(**fields), metadata=key, timeout=5)


@pytest.fixture(scope="module")
async def retention(database: Database) -> AsyncIterator[Retention]:
    engine = open_database(database.ledger_url)
    settings = ServerSettings(
        listen_address=Addresses.free().ledger, service_token=SERVICE_TOKEN, reflection=False, drain_seconds=0
    )
    service = Service(
        retention_service_pb2.DESCRIPTOR.services_by_name["RetentionService"],
        retention_service_pb2_grpc.add_RetentionServiceServicer_to_server,
        RetentionServicer(engine),
    )
    server = GrpcServer(settings, DatabaseKeyDirectory(engine), [service])
    await server.start()
    try:
        async with a_stepped_ledger(database) as ledger, grpc.aio.insecure_channel(settings.listen_address) as channel:
            yield Retention(ledger, retention_service_pb2_grpc.RetentionServiceStub(channel))
    finally:
        await server.stop()
        await engine.dispose()


async def test_an_organization_can_see_what_of_it_has_left_the_disk(retention: Retention) -> None:
    organization_id, other = (retention.ledger.add_organization() for _ in range(2))
    for one in (organization_id, other):
        for day in range(2):
            await retention.ledger.record_at(one, NOON + day * DAY)
    await retention.ledger.pass_at(NOON + 10 * DAY)

    key = retention.key(Scope.ORGANIZATION, organization_id)
    listed = await retention.expiries(key)

    assert {expiry.organization_id for expiry in listed.expiries} == {organization_id}
    assert sorted((expiry.day, expiry.kind) for expiry in listed.expiries) == [
        ("2031-05-14", KEPT_KIND_DETAIL),
        ("2031-05-14", KEPT_KIND_HOURS),
        ("2031-05-15", KEPT_KIND_DETAIL),
        ("2031-05-15", KEPT_KIND_HOURS),
    ]
    assert {(one.row_count, one.record_count, one.cost, one.charged) for one in listed.expiries} == {
        ("1", "1", "0.00375", "0.00375")
    }
    assert listed.expiries[0].expire_time.ToDatetime(NOON.tzinfo) == NOON + 10 * DAY


async def test_expiries_come_in_pages_newest_first(retention: Retention) -> None:
    organization_id = retention.ledger.add_organization()
    for day in range(3):
        await retention.ledger.record_at(organization_id, NOON + day * DAY)
        await retention.ledger.pass_at(NOON + (day + 5) * DAY)
    key = retention.key(Scope.OPERATOR)

    whole = await retention.expiries(key, organization_id=organization_id)
    pages, token = [], ""
    for _ in range(3):
        page = await retention.expiries(key, organization_id=organization_id, limit="2", page_token=token)
        pages += page.expiries
        token = page.next_page_token

    assert token == ""
    assert pages == list(whole.expiries)
    days = [expiry.day for expiry in pages]
    assert days == sorted(days, reverse=True)


async def test_an_operator_sees_what_does_not_add_up_and_by_how_much(retention: Retention) -> None:
    organization_id = retention.ledger.add_organization()
    await retention.ledger.record_at(organization_id, NOON)
    retention.ledger.execute(
        "UPDATE ledger.record_day SET record_count = 2, cost_pico = cost_pico + 1 WHERE organization_id = %s",
        organization_id,
    )
    await retention.ledger.pass_at(NOON + 10 * DAY)

    listed = await retention.problems(retention.key(Scope.OPERATOR))

    problems = [one for one in listed.problems if one.organization_id == organization_id]
    assert [one.kind for one in problems] == [KEPT_KIND_DETAIL, KEPT_KIND_HOURS]
    assert {(one.name, one.expected, one.found) for one in problems[0].sums} == {
        ("record_count", "2", "1"),
        ("cost_pico", "3750000001", "3750000000"),
    }
    assert (await retention.expiries(retention.key(Scope.ORGANIZATION, organization_id))).expiries == []


async def test_nobody_sees_the_expiries_of_another_nor_problems_without_being_an_operator(
    retention: Retention,
) -> None:
    organization_id, other = (retention.ledger.add_organization() for _ in range(2))
    key = retention.key(Scope.ORGANIZATION, organization_id)

    foreign = await refusal_of(retention.expiries(key, organization_id=other))
    missing = await refusal_of(retention.expiries(retention.key(Scope.OPERATOR), organization_id=str(new_uuid7())))
    unnamed = await refusal_of(retention.expiries(retention.key(Scope.OPERATOR)))
    problems = await refusal_of(retention.problems(key))

    assert foreign.code is grpc.StatusCode.PERMISSION_DENIED
    assert missing.code is grpc.StatusCode.NOT_FOUND
    assert unnamed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert problems.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("token", ["no token", "AAAAAAAAAAA=", "ü"])
async def test_a_page_token_that_was_never_given_is_refused(retention: Retention, token: str) -> None:
    organization_id = retention.ledger.add_organization()

    refusal = await refusal_of(retention.expiries(retention.key(Scope.ORGANIZATION, organization_id), page_token=token))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
