"""Books outlive the records they were made of, and still agree."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from services.common.database import open_database
from services.ledger.accounts.accounts import Plan
from services.ledger.books.book_reading import BookReader, Statement
from services.ledger.books.statement import Period
from services.ledger.books.verifying import BookVerifier
from services.ledger.storage.books.verification import Difference
from tests.conftest import Database
from tests.retention_builders import DAY, NOON, SteppedLedger, a_stepped_ledger
from tests.usage_builders import COST_PICO


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[SteppedLedger]:
    async with a_stepped_ledger(database) as running:
        yield running


async def ask(ledger: SteppedLedger, organization_id: str) -> tuple[list[Difference], Statement]:
    """What does not agree, and the statement of ten days."""
    engine = open_database(ledger.database.ledger_url)
    try:
        findings = await BookVerifier(engine, clock=ledger.clock).verify(UUID(organization_id))
        period = Period((NOON - 9 * DAY).date(), NOON.date())
        return findings.differences, await BookReader(engine, clock=ledger.clock).statement(
            UUID(organization_id), period
        )
    finally:
        await engine.dispose()


async def test_statements_and_books_stay_as_they_were_while_detail_expires(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.FREE, 3)
    for hours in range(0, 60, 7):
        await ledger.record_at(organization_id, NOON - timedelta(hours=hours))
    before = await ask(ledger, organization_id)

    for step in range(1, 6):
        await ledger.pass_at(NOON + step * timedelta(hours=19))
        differences, statement = await ask(ledger, organization_id)
        assert differences == []
        assert (statement.lines, statement.balance) == (before[1].lines, before[1].balance)

    assert before[0] == []
    assert before[1].total.charged_pico == 9 * COST_PICO
    assert ledger.count("usage_record", organization_id) < 9


async def test_books_agree_after_a_plan_changed(ledger: SteppedLedger) -> None:
    ledger.clock.now = NOON
    organization_id = ledger.add_organization(Plan.PRO, 90)
    for days in range(9):
        await ledger.record_at(organization_id, NOON - days * DAY)
    ledger.change_plan(organization_id, Plan.FREE, 3)

    await ledger.pass_at(NOON + timedelta(seconds=1))
    differences, statement = await ask(ledger, organization_id)

    assert differences == []
    assert statement.total.charged_pico == 9 * COST_PICO
    assert ledger.count("usage_record", organization_id) < 9
