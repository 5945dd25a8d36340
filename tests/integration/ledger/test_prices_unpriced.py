"""Which recorded calls wait for a price."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.database import open_database
from services.ledger.storage.transactions import transaction
from services.ledger.storage.usage.unpriced import UnpricedFilter, UnpricedRecord, unpriced_records
from tests.conftest import Database
from tests.usage_builders import Recorder, a_record, a_recorder, a_request, add_organization, now_in_utc

EVERYTHING = UnpricedFilter(organization_id=None, provider=None, model=None)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[AsyncEngine]:
    engine = open_database(database.ledger_url)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database) as running:
        yield running


async def unpriced(
    ledger: AsyncEngine,
    wanted: UnpricedFilter = EVERYTHING,
    *,
    after: UUID | None = None,
    limit: int = 100,
    later: timedelta = timedelta(0),
) -> list[UnpricedRecord]:
    async with transaction(ledger) as connection:
        return await unpriced_records(connection, wanted, after=after, limit=limit, now=now_in_utc() + later)


async def test_unpriced_records_are_found_by_what_they_lack_a_price_for(
    ledger: AsyncEngine, recorder: Recorder, database: Database
) -> None:
    organization_id, other = add_organization(database), add_organization(database)
    records = [
        a_record(organization_id, model="brand-new", at=now_in_utc() - timedelta(seconds=2)),
        a_record(organization_id),  # has a price
        a_record(organization_id, model="newer-still", at=now_in_utc() - timedelta(seconds=1)),
        a_record(other, model="brand-new"),
    ]
    for record in records:
        await recorder.record(a_request(record))
    mine = UnpricedFilter(organization_id=UUID(organization_id), provider=None, model=None)

    found = await unpriced(ledger, mine)
    of_model = await unpriced(ledger, UnpricedFilter(organization_id=None, provider=None, model="brand-new"))

    assert [(each.model, str(each.request_id)) for each in found] == [
        ("brand-new", records[0].request_id),
        ("newer-still", records[2].request_id),
    ]
    assert {str(each.organization_id) for each in of_model} == {organization_id, other}
    assert await unpriced(ledger, mine, after=found[0].request_id) == found[1:]
    assert await unpriced(ledger, mine, limit=1) == found[:1]


async def test_unpriced_records_past_their_retention_are_not_seen(
    ledger: AsyncEngine, recorder: Recorder, database: Database
) -> None:
    organization_id = add_organization(database)
    record = a_record(organization_id, model="brand-new")
    await recorder.record(a_request(record))
    mine = UnpricedFilter(organization_id=UUID(organization_id), provider=None, model=None)
    (found,) = await unpriced(ledger, mine)
    # As many days as organizations of these tests keep records.
    kept_for = found.start_time + timedelta(days=90) - now_in_utc()

    assert await unpriced(ledger, mine, later=kept_for - timedelta(seconds=5)) == [found]
    assert await unpriced(ledger, mine, later=kept_for + timedelta(seconds=5)) == []
