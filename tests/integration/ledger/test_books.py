import psycopg
import pytest
from psycopg import errors

from tests.conftest import Database
from tests.usage_builders import a_record, a_recorder, a_request, add_organization


@pytest.fixture(scope="module")
async def organization_id(database: Database) -> str:
    """One with a record, a journal entry and balances."""
    organization_id = add_organization(database)
    async with a_recorder(database) as recorder:
        await recorder.record(a_request(a_record(organization_id)))
    return organization_id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.journal_entry SET amounts = amounts",
        "DELETE FROM ledger.journal_entry",
        "TRUNCATE ledger.journal_entry",
        "UPDATE ledger.credit_grant SET amount_pico = 1",
        "UPDATE ledger.rejected_record SET status = status",
    ],
)
def test_what_is_booked_cannot_be_changed_by_the_ledger_itself(
    database: Database, organization_id: str, statement: str
) -> None:
    with psycopg.connect(database.ledger_url) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def entry(organization_id: str, accounts: list[int], amounts: list[int]) -> tuple[str, tuple[object, ...]]:
    statement = """
        INSERT INTO ledger.journal_entry
               (organization_id, sequence, kind, reference, create_time, balance_pico, accounts, amounts)
        VALUES (%s, 99, 1, 'planted', now(), 0, %s, %s)
    """
    return statement, (organization_id, accounts, amounts)


@pytest.mark.parametrize(
    ("accounts", "amounts"),
    [([1, 5], [-3, 2]), ([1], [0]), ([1, 5], [-3, 1, 2]), ([], [])],
    ids=["does not sum to zero", "has one side", "has more amounts than accounts", "is empty"],
)
def test_the_database_refuses_an_entry_that(
    database: Database, organization_id: str, accounts: list[int], amounts: list[int]
) -> None:
    statement, values = entry(organization_id, accounts, amounts)

    with psycopg.connect(database.ledger_url) as connection, pytest.raises(errors.CheckViolation):
        connection.execute(statement.encode(), values)


@pytest.mark.parametrize(
    "change",
    [
        "cost_pico = cost_pico + 1",
        "charged_pico = charged_pico - 1",
        "saved_pico = 1",
        "line_cost_pico[1] = line_cost_pico[1] + 1",
        "line_charged[1] = false",
        "line_quantity = line_quantity || 1::bigint",
        "unpriced = true",
        "cost_pico = NULL",
    ],
)
def test_the_database_refuses_a_record_whose_amounts_are_not_those_of_its_lines(
    database: Database, organization_id: str, change: str
) -> None:
    statement = f"UPDATE ledger.usage_record SET {change} WHERE organization_id = %s"

    with psycopg.connect(database.admin_url) as connection, pytest.raises(errors.CheckViolation):
        connection.execute(statement.encode(), (organization_id,))


@pytest.mark.parametrize("view", ["usage_record", "cost_line", "usage_hour"])
def test_readers_see_the_rows_of_the_organization_they_named_and_no_others(
    database: Database, organization_id: str, view: str
) -> None:
    query = f"SELECT count(*) FROM reporting.{view}".encode()

    def seen(setting: str) -> int:
        with psycopg.connect(database.reporting_url) as connection:
            connection.execute(setting.encode())
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

    own = seen(f"SET LOCAL tollgate.organization_id = '{organization_id}'")
    assert own > 0
    assert seen("SELECT") == 0
    assert seen("SET LOCAL tollgate.organization_id = '0199a000-0000-7000-8000-00000000000a'") == 0
    assert seen("SET LOCAL ROLE tollgate_reporting_operator") == own
