"""Arrays that are written as text are what PostgreSQL reads."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest

from services.ledger.storage.array_literals import array_of, array_of_arrays
from tests.conftest import Database


@pytest.fixture(scope="module")
def connection(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.ledger_url, autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize(
    ("array_type", "values", "read"),
    [
        pytest.param("bigint[]", [-(2**63), 0, 2**63 - 1], None, id="whole numbers"),
        pytest.param("numeric[]", [-(10**37), 10**37], [Decimal(-(10**37)), Decimal(10**37)], id="large ones"),
        pytest.param("date[]", [date(1999, 12, 31)], None, id="days"),
        pytest.param("timestamptz[]", [datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)], None, id="moments"),
        pytest.param(
            "uuid[]", ["0199a000-0000-7000-8000-00000000000a"], [UUID("0199a000-0000-7000-8000-00000000000a")], id="ids"
        ),
        pytest.param("bigint[]", [], None, id="none"),
    ],
)
def test_an_array_comes_back(
    connection: psycopg.Connection, array_type: str, values: list[int | str | date], read: list[object] | None
) -> None:
    row = connection.execute(f"SELECT %s::{array_type}".encode(), (array_of(values),)).fetchone()

    assert row == (values if read is None else read,)


def test_arrays_of_any_length_come_back_one_by_one(connection: psycopg.Connection) -> None:
    literal = array_of_arrays(map(array_of, ([1, -2], [3], [])))

    rows = connection.execute("SELECT one::numeric[] FROM unnest(%s::text[]) AS one", (literal,)).fetchall()

    assert rows == [([1, -2],), ([3],), ([],)]
