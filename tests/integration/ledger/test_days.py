from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.usage_builders import (
    COST_PICO,
    Recorder,
    a_price_book,
    a_record,
    a_recorder,
    a_request,
    add_organization,
    books_of,
    now_in_utc,
)

INPUT, CACHED_INPUT, OUTPUT, DATA_STORAGE = 1, 2, 6, 13


@pytest.fixture(scope="module")
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with a_recorder(database, a_price_book(discount="0.2")) as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


def money_of(database: Database, organization_id: str, columns: str) -> list[Any]:
    query = f"SELECT {columns} FROM ledger.money_day WHERE organization_id = %s ORDER BY day, funding, line, model"
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query.encode(), (organization_id,)).fetchall()


def records_of(database: Database, organization_id: str) -> list[Any]:
    query = """
        SELECT day, record_count, unpriced_count, cost_pico, saved_pico, charged_pico
          FROM ledger.record_day WHERE organization_id = %s ORDER BY day
    """
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(query, (organization_id,)).fetchall()


async def test_a_day_s_money_is_kept_by_line_and_price_version_before_and_after_the_discount(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id), a_record(organization_id, payload_retained=True)))

    columns = "line, charged, price_version_id, discount, line_count, quantity, list_cost_pico, cost_pico"
    assert [tuple(map(float, row)) for row in money_of(database, organization_id, columns)] == [
        (INPUT, True, 1, 0.2, 2, 800, 2_000_000_000, 1_600_000_000),
        (CACHED_INPUT, True, 1, 0.2, 2, 1_200, 1_500_000_000, 1_200_000_000),
        (OUTPUT, True, 1, 0.2, 2, 400, 4_000_000_000, 3_200_000_000),
        (DATA_STORAGE, True, 0, 0, 1, 1_200, 12_000_000, 12_000_000),
    ]


async def test_own_keys_are_shown_apart_and_charged_nothing(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    await recorder.record(a_request(a_record(organization_id), a_record(organization_id, funding=2)))

    query = """
        SELECT funding, charged, sum(list_cost_pico), sum(cost_pico)
          FROM ledger.money_day WHERE organization_id = %s GROUP BY 1, 2 ORDER BY 1
    """
    with psycopg.connect(database.admin_url) as connection:
        rows = connection.execute(query, (organization_id,)).fetchall()
    assert rows == [(1, True, COST_PICO, COST_PICO * 8 // 10), (2, False, COST_PICO, COST_PICO * 8 // 10)]


async def test_a_day_counts_all_its_records_those_without_lines_too(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    refused = a_record(organization_id, outcome=8, status=429, usage=None, usage_source=0, model="", provider="")
    unpriced = a_record(organization_id, model="nobody-priced-this")

    await recorder.record(a_request(a_record(organization_id), refused, unpriced))

    charged = COST_PICO * 8 // 10
    assert records_of(database, organization_id) == [(now_in_utc().date(), 3, 1, charged, COST_PICO - charged, charged)]


async def test_a_late_record_is_added_to_the_day_it_belongs_to(
    recorder: Recorder, database: Database, organization_id: str
) -> None:
    midnight = datetime.combine(now_in_utc().date() - timedelta(days=9), datetime.min.time(), UTC)
    before = midnight - timedelta(microseconds=1)
    for moment in (midnight, before, midnight):
        await recorder.record(a_request(a_record(organization_id, at=moment)))

    counts = [(day, count) for day, count, *_ in records_of(database, organization_id)]
    assert counts == [(before.date(), 1), (midnight.date(), 2)]
    assert {day for (day,) in money_of(database, organization_id, "day")} == {before.date(), midnight.date()}


async def test_days_agree_with_the_journal(recorder: Recorder, database: Database, organization_id: str) -> None:
    await recorder.record(
        a_request(
            *(a_record(organization_id, workflow=str(number)) for number in range(3)),
            a_record(organization_id, funding=2, payload_retained=True),
            a_record(organization_id, model="nobody-priced-this", payload_retained=True),
        )
    )

    revenue, discount = 5, 6
    journal = books_of(database, organization_id).journal
    money = money_of(database, organization_id, "list_cost_pico * charged::int, cost_pico * charged::int")
    assert sum(gross for gross, _ in money) == journal[revenue]
    assert sum(gross - net for gross, net in money) == -journal[discount]
    ((_, count, *_, charged),) = records_of(database, organization_id)
    assert (count, charged) == (5, sum(net for _, net in money))
