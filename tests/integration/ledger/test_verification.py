"""VerifyBooks finds nothing in sound books, and whatever is planted."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.database import open_database
from services.ledger.books.billing import NewGrant, NewRefund
from services.ledger.books.journal import Account
from services.ledger.books.verifying import BookVerifier
from services.ledger.storage.books.refunds import RefundKind
from services.ledger.storage.books.verification import CHECKS, DIFFERENCES_MAX, Difference, Verification
from tests.books_rig import UNPRICED_MODEL, BooksRig, a_books_rig
from tests.conftest import Database
from tests.usage_builders import a_record, add_organization, now_in_utc


@dataclass(frozen=True, slots=True)
class Planted:
    """A change that nobody should make, and where it has to show: check and figure."""

    what: str
    statements: tuple[str, ...]
    shows: tuple[tuple[str, str], ...]


MINE = "organization_id = :organization_id"
# One that credits paid.
ONE_RECORD = f"""
    {MINE} AND request_id = (SELECT min(request_id::text)::uuid FROM ledger.usage_record
                              WHERE {MINE} AND model = 'gpt-4o' AND funding = 1 AND NOT payload_retained)
"""
WITHOUT_CHECKS = "ALTER TABLE ledger.usage_record DROP CONSTRAINT usage_record_lines_add_up"
ENTRIES_UNCHECKED = "ALTER TABLE ledger.journal_entry DROP CONSTRAINT journal_entry_sums_to_zero"
ONE_HOUR = f"{MINE} AND ctid = (SELECT min(ctid) FROM ledger.usage_hour WHERE {MINE})"
ONE_MONEY_ROW = f"{MINE} AND ctid = (SELECT min(ctid) FROM ledger.money_day WHERE {MINE} AND charged)"

PLANTED = [
    Planted(
        "a line costs a pico more, and its record too",
        (
            f"""UPDATE ledger.usage_record SET line_cost_pico[1] = line_cost_pico[1] + 1, cost_pico = cost_pico + 1,
                       saved_pico = saved_pico - 1, charged_pico = charged_pico + 1 WHERE {ONE_RECORD}""",
        ),
        (
            ("lines_are_exact", "cost_pico"),
            ("hours_are_their_records", "input_cost_pico"),
            ("money_is_its_lines", "cost_pico"),
            ("days_are_their_records", "charged_pico"),
        ),
    ),
    Planted(
        "a line has another quantity",
        (f"UPDATE ledger.usage_record SET line_quantity[2] = line_quantity[2] + 1 WHERE {ONE_RECORD}",),
        (("lines_are_exact", "list_cost_pico"), ("money_is_its_lines", "quantity")),
    ),
    Planted(
        "a record is not the sum of its lines",
        (WITHOUT_CHECKS, f"UPDATE ledger.usage_record SET charged_pico = charged_pico - 1 WHERE {ONE_RECORD}"),
        (("records_are_their_lines", "charged_pico"),),
    ),
    Planted(
        "a record is gone",
        (f"DELETE FROM ledger.usage_record WHERE {ONE_RECORD}",),
        (("days_are_their_records", "record_count"), ("hours_are_their_records", "request_count")),
    ),
    Planted(
        "a record is there twice",
        (
            f"CREATE TEMPORARY TABLE copied AS SELECT * FROM ledger.usage_record WHERE {ONE_RECORD}",
            "UPDATE copied SET request_id = gen_random_uuid()",
            "INSERT INTO ledger.usage_record SELECT * FROM copied",
        ),
        (("days_are_their_records", "record_count"), ("money_is_its_lines", "line_count")),
    ),
    Planted(
        "an hour is off by one pico",
        (f"UPDATE ledger.usage_hour SET cost_pico = cost_pico + 1 WHERE {ONE_HOUR}",),
        (
            ("hours_are_their_records", "cost_pico"),
            ("days_are_their_hours", "cost_pico"),
            ("day_figures_are_their_hours", "cost_pico"),
        ),
    ),
    Planted(
        "an hour has a token more",
        (f"UPDATE ledger.usage_hour SET output_tokens = output_tokens + 1 WHERE {ONE_HOUR}",),
        (("hours_are_their_records", "output_tokens"),),
    ),
    Planted(
        "an hour is gone",
        (f"DELETE FROM ledger.usage_hour WHERE {ONE_HOUR}",),
        (("hours_are_their_records", "request_count"), ("days_are_their_hours", "record_count")),
    ),
    Planted(
        "a day's figure is off by one pico",
        (f"UPDATE ledger.usage_day SET charged_pico = charged_pico - 1 WHERE {MINE}",),
        (("day_figures_are_their_hours", "charged_pico"),),
    ),
    Planted(
        "a day's money is off by one pico",
        (f"UPDATE ledger.money_day SET list_cost_pico = list_cost_pico + 1 WHERE {ONE_MONEY_ROW}",),
        (
            ("money_is_its_lines", "list_cost_pico"),
            ("days_are_their_money", "saved_pico"),
            ("charges_are_booked", "revenue_pico"),
        ),
    ),
    Planted(
        "a day's money is gone",
        (f"DELETE FROM ledger.money_day WHERE {ONE_MONEY_ROW}",),
        (("money_is_its_lines", "line_count"), ("charges_are_booked", "revenue_pico")),
    ),
    Planted(
        "a day has a record more",
        (f"UPDATE ledger.record_day SET record_count = record_count + 1 WHERE {MINE}",),
        (("days_are_their_records", "record_count"), ("days_are_their_hours", "record_count")),
    ),
    Planted(
        "a posting says another amount",
        (ENTRIES_UNCHECKED, f"UPDATE ledger.journal_entry SET amounts[1] = amounts[1] - 1 WHERE {MINE} AND kind = 1"),
        (
            ("entries_follow_each_other", "sum_of_postings"),
            ("entries_follow_each_other", "balance_pico"),
            ("balances_are_their_postings", "amount_pico"),
        ),
    ),
    Planted(
        "an entry says another amount on both sides",
        (
            f"""UPDATE ledger.journal_entry SET amounts = ARRAY[amounts[1] - 1, amounts[2] + 1] || amounts[3:]
                 WHERE {MINE} AND kind = 1""",
        ),
        (("balances_are_their_postings", "amount_pico"), ("charges_are_booked", "revenue_pico")),
    ),
    Planted(
        "a balance is a pico higher",
        (f"UPDATE ledger.balance SET amount_pico = amount_pico + 1 WHERE {MINE} AND account = 1",),
        (("balances_are_their_postings", "amount_pico"),),
    ),
    Planted(
        "a balance is gone",
        (f"DELETE FROM ledger.balance WHERE {MINE} AND account = 9",),
        (("balances_are_their_postings", "amount_pico"),),
    ),
    Planted(
        "an entry is missing in the middle",
        (f"DELETE FROM ledger.journal_entry WHERE {MINE} AND sequence = 2",),
        (("entries_follow_each_other", "sequence"), ("balances_are_their_postings", "amount_pico")),
    ),
    Planted(
        "the last entry is missing",
        (
            f"""DELETE FROM ledger.journal_entry
                 WHERE {MINE} AND sequence = (SELECT sequence FROM ledger.book WHERE {MINE})""",
        ),
        (("the_last_entry_is_known", "sequence"),),
    ),
    Planted(
        "an entry was booked before the one before it",
        (f"UPDATE ledger.journal_entry SET create_time = create_time - interval '1 h' WHERE {MINE} AND sequence = 3",),
        (("entries_follow_each_other", "create_time"),),
    ),
    Planted(
        "a grant was larger than booked",
        (f"UPDATE ledger.credit_grant SET amount_pico = amount_pico + 1 WHERE {MINE} AND grant_id = 'paid'",),
        (("grants_are_booked", "amount_pico"),),
    ),
    Planted(
        "a refund was never booked",
        (f"UPDATE ledger.credit_refund SET sequence = 99 WHERE {MINE} AND refund_id = 'back'",),
        (("refunds_are_booked", "amount_pico"),),
    ),
    Planted(
        "there is more credit than remained of grants",
        (f"UPDATE ledger.credit_grant SET remaining_pico = 0 WHERE {MINE} AND grant_id = 'paid'",),
        (("credit_was_granted", "amount_pico"),),
    ),
]


@pytest.fixture(scope="module")
async def organization_id(database: Database) -> str:
    """One to which everything has happened once."""
    organization_id = add_organization(database)
    async with a_books_rig(database) as rig:
        await _live(rig, organization_id)
    return organization_id


async def _live(rig: BooksRig, organization_id: str) -> None:
    prepaid = NewGrant(organization_id=organization_id, grant_id="paid", account=Account.PREPAID, amount_pico=10**13)
    ends = rig.clock() + timedelta(seconds=5)
    await rig.billing.grant(prepaid)
    await rig.billing.grant(replace(prepaid, grant_id="gift", account=Account.PROMOTIONAL, expire_time=ends))
    calls: list[dict[str, Any]] = [{}, {"funding": 2}, {"payload_retained": True}, {"model": UNPRICED_MODEL}]
    hours = (rig.clock() - timedelta(hours=number) for number in range(3))
    await rig.record([a_record(organization_id, at=at, **call) for at in hours for call in calls])
    await rig.publish()
    back = NewRefund(
        organization_id=organization_id,
        refund_id="back",
        kind=RefundKind.UNSPENT,
        amount_pico=7,
        grant_id="paid",
        account=None,
        reason="",
    )
    await rig.billing.refund(back)
    correction: dict[str, Any] = {
        "kind": RefundKind.CORRECTION,
        "grant_id": None,
        "account": Account.PREPAID,
        "reason": "wrong model",
    }
    await rig.billing.refund(replace(back, refund_id="corrected", **correction))
    rig.clock.step(6)
    await rig.ender.make_pass()


@pytest.fixture(scope="module")
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    opened = open_database(database.admin_url)
    yield opened
    await opened.dispose()


async def found_by(connection: AsyncConnection, organization_id: str) -> list[Difference]:
    return [one async for one in Verification(connection, UUID(organization_id)).differences()]


async def test_nothing_is_found_in_sound_books(engine: AsyncEngine, organization_id: str) -> None:
    verifier = BookVerifier(engine, clock=now_in_utc)

    for whose in (UUID(organization_id), None):
        findings = await verifier.verify(whose)
        assert findings.differences == []
        assert not findings.truncated
        assert (findings.counts.organizations, findings.counts.records, findings.counts.cost_lines) == (1, 12, 39)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.what)
async def test_what_is_planted_is_found(engine: AsyncEngine, organization_id: str, planted: Planted) -> None:
    async with engine.connect() as connection:
        for statement in planted.statements:
            values = {"organization_id": organization_id} if ":organization_id" in statement else {}
            await connection.execute(text(statement), values)
        found = await found_by(connection, organization_id)
        await connection.rollback()

    assert set(planted.shows) <= {(difference.check, difference.figure) for difference in found}


def test_every_check_finds_something_that_is_planted() -> None:
    assert {check for planted in PLANTED for check, _ in planted.shows} == set(CHECKS)


async def test_a_difference_says_where_it_is_and_by_how_much(engine: AsyncEngine, organization_id: str) -> None:
    async with engine.connect() as connection:
        statement = f"UPDATE ledger.balance SET amount_pico = amount_pico + 3 WHERE {MINE} AND account = 5"
        await connection.execute(text(statement), {"organization_id": organization_id})
        (difference,) = await found_by(connection, organization_id)
        await connection.rollback()

    assert (difference.check, difference.place, difference.figure) == (
        "balances_are_their_postings",
        "account 5",
        "amount_pico",
    )
    assert int(difference.found or 0) - int(difference.expected or 0) == 3
    assert str(difference.organization_id) == organization_id


async def test_one_organization_s_trouble_is_not_another_s(
    engine: AsyncEngine, database: Database, organization_id: str
) -> None:
    other_id = add_organization(database)
    async with engine.connect() as connection:
        statement = f"UPDATE ledger.balance SET amount_pico = amount_pico + 3 WHERE {MINE}"
        await connection.execute(text(statement), {"organization_id": organization_id})

        assert await found_by(connection, other_id) == []
        assert len(await found_by(connection, organization_id)) > 1
        await connection.rollback()


async def test_more_differences_than_can_be_listed_are_said_to_be_more(
    engine: AsyncEngine, database: Database, organization_id: str
) -> None:
    crooked_id = add_organization(database)
    async with engine.begin() as connection:
        statement = """
            INSERT INTO ledger.record_day
            SELECT :organization_id, DATE '2020-01-01' + number, 1, 0, 0, 0, 0 FROM generate_series(1, 600) AS number
        """
        await connection.execute(text(statement), {"organization_id": crooked_id})

    findings = await BookVerifier(engine, clock=now_in_utc).verify(UUID(crooked_id))

    assert (len(findings.differences), findings.truncated) == (DIFFERENCES_MAX, True)
    assert (await BookVerifier(engine, clock=now_in_utc).verify(UUID(organization_id))).differences == []
