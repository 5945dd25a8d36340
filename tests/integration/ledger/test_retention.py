import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from services.common.database import open_database
from services.ledger.accounts.accounts import Plan
from services.ledger.metrics import RETENTION_PROBLEMS
from services.ledger.retention.expiring import Expirer
from services.ledger.retention.retention import KEY_DAYS, Kept
from services.ledger.storage.leadership import LEASE
from services.ledger.storage.transactions import transaction
from services.ledger.storage.usage.unpriced import UnpricedFilter, unpriced_records
from services.ledger.storage.writer import DatabaseWriter
from services.ledger.usage.records import RecordStatus
from tests.conftest import Database
from tests.retention_builders import DAY, MICROSECOND, NOON, SteppedLedger, a_stepped_ledger
from tests.usage_builders import COST_PICO, a_record, uuid7_at

MIDNIGHT = datetime(2031, 5, 14, tzinfo=UTC)


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[SteppedLedger]:
    """On a database of the module's own, emptied."""
    # One transaction for each: together they would hold more locks than there are.
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        for (partition,) in connection.execute("""
            SELECT inhrelid::regclass::text FROM pg_inherits
             WHERE inhparent IN ('ledger.usage_record'::regclass, 'ledger.payload'::regclass,
                                 'ledger.record_key'::regclass)
        """).fetchall():
            connection.execute(f"DROP TABLE {partition}")
        connection.execute("""
            TRUNCATE ledger.usage_hour, ledger.record_day, ledger.money_day, ledger.expiry, ledger.retention_problem,
                     ledger.leader, ledger.plan_settlement
        """)
    async with a_stepped_ledger(database) as running:
        yield running


async def test_detail_leaves_the_disk_within_24_hours_of_its_expiry(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    first, last = MIDNIGHT, MIDNIGHT + DAY - MICROSECOND
    for moment in (first, last):
        await ledger.record_at(organization_id, moment)

    await ledger.pass_at(first + 4 * DAY - MICROSECOND)
    assert ledger.count("usage_record", organization_id) == 2

    await ledger.pass_at(first + 3 * DAY + timedelta(hours=24))
    assert ledger.count("usage_record", organization_id) == 0
    assert ledger.expiries(organization_id)[0] == (MIDNIGHT.date(), Kept.DETAIL, 2, 2, 2 * COST_PICO)


async def test_expiry_drops_the_partition_rather_than_deleting_from_it(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)

    await ledger.pass_at(NOON + 5 * DAY)

    assert ledger.rows("SELECT to_regclass('ledger.usage_record_003_20310514')") == [(None,)]


async def test_hours_of_figures_leave_the_disk_with_their_day(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    for hour in range(0, 24, 6):
        await ledger.record_at(organization_id, MIDNIGHT + timedelta(hours=hour))

    await ledger.pass_at(MIDNIGHT + 4 * DAY - MICROSECOND)
    assert ledger.count("usage_hour", organization_id) == 4

    await ledger.pass_at(MIDNIGHT + 4 * DAY)
    assert ledger.count("usage_hour", organization_id) == 0
    assert (MIDNIGHT.date(), Kept.HOURS, 4, 4, 4 * COST_PICO) in ledger.expiries(organization_id)


async def test_money_and_books_stay(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    tables = ("money_day", "record_day", "journal_entry", "balance")
    before = {table: ledger.rows(f"TABLE ledger.{table}") for table in tables}

    await ledger.pass_at(NOON + 1_000 * DAY)

    assert ledger.count("usage_record", organization_id) == 0
    assert {table: ledger.rows(f"TABLE ledger.{table}") for table in tables} == before


@pytest.mark.parametrize(
    ("plan", "retention_days", "gone_after_days"),
    [
        pytest.param(Plan.FREE, 3, 4, id="free"),
        pytest.param(Plan.PRO, 90, 91, id="pro"),
        pytest.param(Plan.ENTERPRISE, 365, 366, id="enterprise for a year"),
        pytest.param(Plan.ENTERPRISE, 31, 36, id="enterprise for a term between classes"),
        pytest.param(Plan.ENTERPRISE, 1, 6, id="enterprise for a day"),
    ],
)
async def test_every_plan_keeps_its_promise(
    ledger: SteppedLedger, plan: Plan, retention_days: int, gone_after_days: int
) -> None:
    organization_id = ledger.add_organization(plan, retention_days)
    await ledger.record_at(organization_id, MIDNIGHT)

    await ledger.pass_at(MIDNIGHT + retention_days * DAY - MICROSECOND)
    assert ledger.count("usage_record", organization_id) == 1

    await ledger.pass_at(MIDNIGHT + gone_after_days * DAY)
    assert ledger.count("usage_record", organization_id) == 0
    promised_days = 7 if plan is Plan.ENTERPRISE else 1
    assert gone_after_days - retention_days <= promised_days


async def test_a_replay_of_an_expired_record_is_a_duplicate_and_resurrects_nothing(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    record = await ledger.record_at(organization_id, NOON)
    await ledger.pass_at(NOON + 10 * DAY)

    for days in (10, 34):
        ledger.clock.now = NOON + days * DAY
        assert await ledger.record(record) == [RecordStatus.DUPLICATE]

    assert ledger.count("usage_record", organization_id) == 0
    assert ledger.count("usage_hour", organization_id) == 0
    assert [row[0] for row in ledger.rows("SELECT record_count FROM ledger.record_day")] == [1]


async def test_keys_outlive_the_longest_detail_by_40_days(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.ENTERPRISE, 365)
    await ledger.record_at(organization_id, MIDNIGHT)

    await ledger.pass_at(MIDNIGHT + 366 * DAY)
    assert ledger.count("usage_record", organization_id) == 0
    await ledger.pass_at(MIDNIGHT + (365 + 40) * DAY)
    assert ledger.count("record_key", organization_id) == 1

    await ledger.pass_at(MIDNIGHT + (KEY_DAYS + 1) * DAY)
    assert ledger.count("record_key", organization_id) == 0
    assert ledger.expiries(organization_id)[-1][:3] == (MIDNIGHT.date(), Kept.KEYS, 1)


async def test_what_was_set_aside_is_there_for_40_days(ledger: SteppedLedger) -> None:
    broken = a_record(ledger.add_organization(), at=NOON, request_id=uuid7_at(NOON), status=1_000)
    ledger.clock.now = NOON
    assert await ledger.record(broken) == [RecordStatus.INVALID]
    left = "SELECT count(*) FROM ledger.rejected_record WHERE receipt_time = %s"

    await ledger.pass_at(NOON + 40 * DAY)
    assert ledger.rows(left, NOON) == [(1,)]

    await ledger.pass_at(NOON + 40 * DAY + MICROSECOND)
    assert ledger.rows(left, NOON) == [(0,)]


async def test_a_late_record_of_a_day_that_is_gone_is_counted_and_goes_with_the_next_pass(
    ledger: SteppedLedger,
) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    await ledger.pass_at(NOON + 10 * DAY)

    late = a_record(organization_id, at=NOON, request_id=uuid7_at(NOON))
    assert await ledger.record(late) == [RecordStatus.RECORDED]
    await ledger.pass_at(NOON + 10 * DAY)

    assert ledger.count("usage_record", organization_id) == 0
    assert ledger.count("usage_hour", organization_id) == 0
    details = [row[2] for row in ledger.expiries(organization_id) if row[1] == Kept.DETAIL]
    assert details == [1, 1]
    assert [row[0] for row in ledger.rows("SELECT record_count FROM ledger.record_day")] == [2]


async def test_a_record_whose_id_is_older_than_its_start_is_kept_by_its_start(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    ledger.clock.now = NOON
    record = a_record(organization_id, at=NOON, request_id=uuid7_at(NOON - 20 * DAY))
    assert await ledger.record(record) == [RecordStatus.RECORDED]

    await ledger.pass_at(NOON + 3 * DAY - MICROSECOND)
    assert ledger.count("usage_record", organization_id) == 1
    await ledger.pass_at(MIDNIGHT + 4 * DAY)
    assert ledger.count("usage_record", organization_id) == 0


# Changes of plan


def seen_since(ledger: SteppedLedger, organization_id: str) -> datetime:
    query = """
        SELECT ledger.kept_since(%s, retention_days, retention_floor)
          FROM reporting.organization WHERE organization_id = %s
    """
    ((since,),) = ledger.rows(query, ledger.clock.now, organization_id)
    return since  # type: ignore[no-any-return]


async def test_a_larger_plan_keeps_what_is_there_from_then_on(ledger: SteppedLedger) -> None:
    organization_id, other = ledger.add_organization(), ledger.add_organization()
    for one in (organization_id, other):
        await ledger.record_at(one, NOON)
    ledger.clock.now = NOON + 2 * DAY
    ledger.change_plan(organization_id, Plan.PRO, 90)

    await ledger.pass_at(NOON + 10 * DAY)
    assert ledger.count("usage_record", other) == 0
    assert ledger.count("usage_record", organization_id) == 1
    assert ledger.count("usage_hour", organization_id) == 1

    await ledger.pass_at(MIDNIGHT + 91 * DAY)
    assert ledger.count("usage_record", organization_id) == 0
    assert ledger.expiries(organization_id)[0][1:4] == (Kept.DETAIL, 1, 1)


async def test_what_had_expired_does_not_come_back_with_a_larger_plan(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON - MICROSECOND)
    await ledger.record_at(organization_id, NOON + MICROSECOND)
    ledger.clock.now = NOON + 3 * DAY
    ledger.change_plan(organization_id, Plan.PRO, 90)
    assert seen_since(ledger, organization_id) == NOON

    await ledger.pass_at(NOON + 3 * DAY + timedelta(minutes=1))

    assert ledger.rows("SELECT start_time FROM ledger.usage_record WHERE organization_id = %s", organization_id) == [
        (NOON + MICROSECOND,)
    ]
    assert ledger.rows("SELECT hour FROM ledger.usage_hour WHERE organization_id = %s", organization_id) == [(NOON,)]


async def test_a_change_is_settled_once_nothing_of_it_is_left_and_the_limit_is_the_plan_s_alone(
    ledger: SteppedLedger,
) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    ledger.clock.now = NOON + 4 * DAY
    ledger.change_plan(organization_id, Plan.PRO, 90)

    await ledger.pass_at(ledger.clock.now + timedelta(minutes=1))
    assert ledger.count("usage_record", organization_id) == 0
    assert ledger.count("usage_hour", organization_id) == 0
    # A batch that was begun before the change may still come.
    assert seen_since(ledger, organization_id) == NOON + DAY

    await ledger.pass_at(ledger.clock.now + timedelta(minutes=5))
    assert seen_since(ledger, organization_id) == ledger.clock.now - 90 * DAY


async def test_a_smaller_plan_hides_at_once_and_deletes_within_a_day(ledger: SteppedLedger) -> None:
    organization_id, other = (ledger.add_organization(Plan.PRO, 90) for _ in range(2))
    moments = [NOON - 60 * DAY, NOON - 4 * DAY, NOON - 2 * DAY]
    for moment in moments:
        for one in (organization_id, other):
            await ledger.record_at(one, moment)
    ledger.clock.now = NOON
    ledger.change_plan(organization_id, Plan.FREE, 3)
    assert seen_since(ledger, organization_id) == NOON - 3 * DAY

    await ledger.pass_at(NOON + timedelta(minutes=5))

    query = "SELECT start_time, retention_class FROM ledger.usage_record WHERE organization_id = %s"
    assert ledger.rows(query, organization_id) == [(moments[2], 3)]
    assert ledger.count("usage_hour", organization_id) == 1
    assert ledger.count("usage_record", other) == 3
    await ledger.pass_at(NOON + 3 * DAY)
    assert ledger.count("usage_record", organization_id) == 0


async def test_down_and_up_again_brings_nothing_back_and_loses_nothing_that_was_seen(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.PRO, 90)
    await ledger.record_at(organization_id, NOON - 10 * DAY)
    await ledger.record_at(organization_id, NOON - DAY)
    ledger.clock.now = NOON
    ledger.change_plan(organization_id, Plan.FREE, 3)
    ledger.clock.now = NOON + timedelta(minutes=1)
    ledger.change_plan(organization_id, Plan.ENTERPRISE, 365)
    assert seen_since(ledger, organization_id) == NOON + timedelta(minutes=1) - 3 * DAY

    await ledger.pass_at(NOON + timedelta(hours=1))

    query = "SELECT start_time, retention_class FROM ledger.usage_record WHERE organization_id = %s"
    assert ledger.rows(query, organization_id) == [(NOON - DAY, 365)]
    assert seen_since(ledger, organization_id) == ledger.clock.now - 365 * DAY


async def test_a_partition_that_somebody_may_still_see_is_not_dropped_with_it(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    # Without a trace in the history of plans, as a restored backup might leave it.
    ledger.execute("UPDATE ledger.organization SET retention_days = 90 WHERE organization_id = %s", organization_id)

    await ledger.pass_at(NOON + 10 * DAY)

    query = "SELECT start_time, retention_class FROM ledger.usage_record WHERE organization_id = %s"
    assert ledger.rows(query, organization_id) == [(NOON, 90)]


# What does not add up

CORRUPTIONS = {
    "a record is missing": "DELETE FROM ledger.usage_record WHERE organization_id = %s AND workflow = 'w0'",
    "all records are missing": "DELETE FROM ledger.usage_record WHERE organization_id = %s",
    "a cost was changed": """
        UPDATE ledger.usage_record SET cost_pico = cost_pico + 1, line_cost_pico[1] = line_cost_pico[1] + 1,
               line_list_cost_pico[1] = line_list_cost_pico[1] + 1, charged_pico = charged_pico + 1
         WHERE organization_id = %s AND workflow = 'w1'
    """,
    "the total was changed": "UPDATE ledger.record_day SET charged_pico = charged_pico - 1 WHERE organization_id = %s",
    "an hour was changed": "UPDATE ledger.usage_hour SET cost_pico = cost_pico + 1 WHERE organization_id = %s",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_what_is_not_what_was_recorded_does_not_expire(
    ledger: SteppedLedger, corruption: str, caplog: pytest.LogCaptureFixture
) -> None:
    organization_id = ledger.add_organization()
    for number in range(2):
        await ledger.record_at(organization_id, NOON, workflow=f"w{number}")
    ledger.execute(corruption, organization_id)
    before = [ledger.count(table, organization_id) for table in ("usage_record", "usage_hour")]

    await ledger.pass_at(NOON + 10 * DAY)

    problems = ledger.rows(
        "SELECT kind, expected, found FROM ledger.retention_problem WHERE organization_id = %s", organization_id
    )
    after = [ledger.count(table, organization_id) for table in ("usage_record", "usage_hour")]
    stuck = {kind for kind, *_ in problems}
    assert stuck
    assert (after[0] == before[0]) or Kept.DETAIL not in stuck
    assert (after[1] == before[1]) or Kept.HOURS not in stuck
    assert RETENTION_PROBLEMS._value.get() == len(problems)
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


async def test_a_problem_that_is_put_right_is_taken_off_the_list_and_expires(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    ledger.execute("UPDATE ledger.record_day SET cost_pico = cost_pico - 1")
    await ledger.pass_at(NOON + 10 * DAY)
    assert ledger.count("retention_problem", organization_id) == 2

    ledger.execute("UPDATE ledger.record_day SET cost_pico = cost_pico + 1")
    await ledger.pass_at(NOON + 10 * DAY)

    assert ledger.count("retention_problem", organization_id) == 0
    assert ledger.count("usage_record", organization_id) == 0


async def test_a_mismatch_of_one_day_keeps_no_other_day(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    for day in range(2):
        await ledger.record_at(organization_id, NOON + day * DAY)
    ledger.execute("UPDATE ledger.record_day SET cost_pico = 0 WHERE day = %s", NOON.date())

    await ledger.pass_at(NOON + 10 * DAY)

    assert ledger.rows("SELECT request_day FROM ledger.usage_record") == [(NOON.date(),)]


# Others at work


async def test_only_one_ledger_leads_until_its_lease_ends(ledger: SteppedLedger, database: Database) -> None:
    organization_id = ledger.add_organization()
    await ledger.pass_at(NOON)
    await ledger.record_at(organization_id, NOON)
    other = Expirer(DatabaseWriter(database.ledger_url), clock=ledger.clock, holder=uuid4())
    try:
        ledger.execute("UPDATE ledger.leader SET lease_end = %s", NOON + 10 * DAY + LEASE)
        ledger.clock.now = NOON + 10 * DAY + LEASE - MICROSECOND
        await other.make_pass()
        assert ledger.count("usage_record", organization_id) == 1

        ledger.clock.now = NOON + 10 * DAY + LEASE
        await other.make_pass()
        assert ledger.count("usage_record", organization_id) == 0
    finally:
        await other.close()


async def test_recording_goes_on_while_partitions_are_dropped(ledger: SteppedLedger) -> None:
    organizations = [ledger.add_organization() for _ in range(3)]
    for organization_id in organizations:
        for day in range(5):
            await ledger.record_at(organization_id, NOON + day * DAY)
    now = ledger.clock.now = NOON + 9 * DAY
    # Half of them late, into the very days that are being dropped.
    records = [
        a_record(organizations[number % 3], at=moment, request_id=uuid7_at(moment))
        for number in range(300)
        for moment in [now - timedelta(seconds=number) if number % 2 else NOON + (number // 2) % 5 * DAY]
    ]

    async def write() -> list[RecordStatus]:
        statuses: list[RecordStatus] = []
        for start in range(0, len(records), 5):
            statuses += await ledger.record(*records[start : start + 5])
        return statuses

    async def drop() -> None:
        for _ in range(8):
            await ledger.expirer.make_pass()

    statuses, _ = await asyncio.gather(write(), drop())
    await ledger.expirer.make_pass()

    assert statuses == [RecordStatus.RECORDED] * 300
    assert ledger.rows("TABLE ledger.retention_problem") == []
    for organization_id in organizations:
        gone = sum(row[2] for row in ledger.expiries(organization_id) if row[1] == Kept.DETAIL)
        assert ledger.count("usage_record", organization_id) + gone == 105
        assert ledger.count("usage_record", organization_id) == 50


async def test_a_reader_that_holds_the_table_delays_a_drop_and_nobody_else(
    ledger: SteppedLedger, database: Database
) -> None:
    organization_id = ledger.add_organization()
    await ledger.record_at(organization_id, NOON)
    with psycopg.connect(database.admin_url) as reader:
        reader.execute("SELECT count(*) FROM ledger.usage_record")
        dropping = asyncio.create_task(ledger.pass_at(NOON + 10 * DAY))
        for number in range(3):
            ledger.clock.now = NOON + 10 * DAY
            moment = ledger.clock.now - timedelta(seconds=number)
            record = a_record(organization_id, at=moment, request_id=uuid7_at(moment))
            async with asyncio.timeout(5):
                assert await ledger.record(record) == [RecordStatus.RECORDED]
        assert ledger.count("usage_record", organization_id) == 4
        reader.rollback()
        await dropping

    assert ledger.count("usage_record", organization_id) == 3


async def test_imported_history_of_400_days_proves_the_year(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.ENTERPRISE, 365)
    ledger.clock.now = NOON
    statuses = await ledger.import_calls(organization_id, [NOON - day * DAY for day in range(400)])

    # What is a year old to the microsecond is taken.
    assert statuses == [RecordStatus.RECORDED] * 366 + [RecordStatus.INVALID] * 34
    for days, kept in ((0, 365), (1, 364), (100, 265), (364, 1)):
        for _ in range(3):
            await ledger.pass_at(MIDNIGHT + DAY + days * DAY)
        seen = ledger.rows(
            "SELECT count(*) FROM ledger.usage_record WHERE organization_id = %s AND start_time >= %s",
            organization_id,
            seen_since(ledger, organization_id),
        )
        assert ledger.count("usage_record", organization_id) == kept
        assert ledger.count("usage_hour", organization_id) == kept
        assert seen == [(kept,)]

    await ledger.pass_at(MIDNIGHT + 366 * DAY + DAY)
    assert ledger.count("usage_record", organization_id) == 0
    assert [row[0] for row in ledger.rows("SELECT sum(record_count) FROM ledger.record_day")] == [366]


async def test_imported_again_after_it_expired_nothing_comes_back(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    moment = NOON - DAY
    assert await ledger.import_calls(organization_id, [moment]) == [RecordStatus.RECORDED]
    await ledger.pass_at(NOON + 10 * DAY)
    ledger.change_plan(organization_id, Plan.ENTERPRISE, 365)
    for minutes in (1, 10):
        await ledger.pass_at(NOON + 10 * DAY + timedelta(minutes=minutes))

    assert await ledger.import_calls(organization_id, [moment]) == [RecordStatus.DUPLICATE]
    assert ledger.count("usage_record", organization_id) == 0


async def test_history_may_be_imported_once_a_larger_plan_is_settled(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization()
    ledger.clock.now = NOON
    ledger.change_plan(organization_id, Plan.PRO, 90)
    assert await ledger.import_calls(organization_id, [NOON - 30 * DAY]) == [RecordStatus.INVALID]

    await ledger.pass_at(NOON + timedelta(minutes=6))

    assert await ledger.import_calls(organization_id, [NOON - 30 * DAY]) == [RecordStatus.RECORDED]
    assert ledger.count("usage_record", organization_id) == 1


async def test_years_of_history_go_in_bounded_passes(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.ENTERPRISE, 365)
    await ledger.import_calls(organization_id, [NOON - day * DAY for day in range(150)])

    await ledger.pass_at(NOON + 1_000 * DAY)
    assert ledger.count("usage_record", organization_id) == 50
    await ledger.pass_at(ledger.clock.now)
    assert ledger.count("usage_record", organization_id) == 0


async def test_unpriced_records_are_listed_to_the_microsecond_too(ledger: SteppedLedger, database: Database) -> None:
    organization_id = ledger.add_organization()
    record = await ledger.record_at(organization_id, NOON + MICROSECOND, model="nobody-priced-this")
    mine = UnpricedFilter(organization_id=UUID(organization_id), provider=None, model=None)
    engine = open_database(database.ledger_url)

    async def listed(now: datetime) -> list[str]:
        async with transaction(engine) as connection:
            found = await unpriced_records(connection, mine, after=None, limit=10, now=now)
        return [str(one.request_id) for one in found]

    try:
        assert await listed(NOON + MICROSECOND + 3 * DAY) == [record.request_id]
        assert await listed(NOON + MICROSECOND + 3 * DAY + MICROSECOND) == []
    finally:
        await engine.dispose()


async def test_detail_of_an_hour_that_is_not_all_past_stays_for_its_figures(ledger: SteppedLedger) -> None:
    organization_id = ledger.add_organization(Plan.PRO, 90)
    for moment in (NOON - MICROSECOND, NOON + timedelta(minutes=1)):
        await ledger.record_at(organization_id, moment)
    ledger.clock.now = NOON + 3 * DAY + timedelta(minutes=30)
    ledger.change_plan(organization_id, Plan.FREE, 3)

    await ledger.pass_at(ledger.clock.now)

    query = "SELECT start_time, retention_class FROM ledger.usage_record WHERE organization_id = %s"
    assert ledger.rows(query, organization_id) == [(NOON + timedelta(minutes=1), 3)]
