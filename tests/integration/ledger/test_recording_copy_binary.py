"""What is packed by hand is what PostgreSQL reads."""

import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.latency_buckets import DIGITS_PER_BUCKET, counts_in
from services.ledger.storage import copy_binary
from services.ledger.storage.copy_binary import FixedArrays, FixedFields, NullableFields
from tests.conftest import Database


@pytest.fixture(scope="module")
def connection(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.ledger_url, autocommit=True) as opened:
        yield opened


def stored(connection: psycopg.Connection, types: str, *fields: bytes) -> tuple[Any, ...]:
    """One row of these types, as it comes back."""
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(types.split()))
    connection.execute(f"DROP TABLE IF EXISTS pg_temp.packed; CREATE TEMPORARY TABLE packed ({columns})".encode())
    row = copy_binary.row_head(len(types.split())) + b"".join(fields)
    with connection.cursor().copy("COPY pg_temp.packed FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(copy_binary.BEGIN + row + copy_binary.END)
    found = connection.execute("SELECT * FROM pg_temp.packed").fetchone()
    assert found is not None
    return tuple(found)


def test_values_of_fixed_width_come_back(connection: psycopg.Connection) -> None:
    pack = FixedFields("bool", "int2", "int4", "int8", "date", "timestamptz", "uuid")
    key = UUID("0199a000-0000-7000-8000-00000000000a")
    day, moment = date(1999, 12, 31), datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    microseconds = round(moment.timestamp() * 1_000_000)

    packed = pack(
        True,
        -2,
        -(2**31),
        2**63 - 1,
        copy_binary.date_value((day - date(1970, 1, 1)).days),
        copy_binary.timestamp_value(microseconds),
        copy_binary.uuid_bytes(str(key)),
    )

    types = "boolean smallint integer bigint date timestamptz uuid"
    assert stored(connection, types, packed) == (True, -2, -(2**31), 2**63 - 1, day, moment, key)


def test_values_of_fixed_width_may_be_none(connection: psycopg.Connection) -> None:
    pack = NullableFields("int2", "bool", "uuid", "int8")
    key = UUID("0199a000-0000-7000-8000-00000000000a")

    types = "smallint boolean uuid bigint"
    assert stored(connection, types, pack(7, False, key.bytes, 8)) == (7, False, key, 8)
    assert stored(connection, types, pack(None, True, key.bytes, 8)) == (None, True, key, 8)
    assert stored(connection, types, pack(7, True, None, None)) == (7, True, None, None)


def test_values_of_fixed_width_must_fit() -> None:
    pack = NullableFields("int2", "int8")

    with pytest.raises(struct.error):
        pack(2**15, None)


def test_values_of_any_width_come_back(connection: psycopg.Connection) -> None:
    fields = (
        copy_binary.text_field("größe"),
        copy_binary.bytes_field(b"\0\xff"),
        copy_binary.jsonb_field({"a": [1, "b"]}),
        copy_binary.NULL,
    )

    assert stored(connection, "text bytea jsonb text", *fields) == ("größe", b"\0\xff", {"a": [1, "b"]}, None)


@pytest.mark.parametrize("values", [[], [1], [1, -2, 3]])
def test_arrays_come_back(connection: psycopg.Connection, values: list[int]) -> None:
    booleans = [value > 0 for value in values]
    fields = (
        FixedArrays("int2", "int8", "bool")(values, values, booleans),
        copy_binary.numeric_array(tuple(map(Decimal, values))),
    )

    types = "smallint[] bigint[] boolean[] numeric[]"
    assert stored(connection, types, *fields) == (values, values, booleans, values)


@settings(max_examples=150, deadline=None)
@given(number=st.one_of(st.integers(-(10**40), 10**40), st.decimals(allow_nan=False, allow_infinity=False, places=18)))
def test_numbers_come_back_exactly(connection: psycopg.Connection, number: int | Decimal) -> None:
    (found,) = stored(connection, "numeric", copy_binary.numeric_field(number))

    assert found == number


@given(sums=st.dictionaries(st.integers(), st.lists(st.integers(-(2**62), 2**66), min_size=2, max_size=2)))
def test_sums_of_any_size_are_added_in_rounds_that_fit_a_column(sums: dict[int, list[int]]) -> None:
    rounds = copy_binary.in_rounds(sums)

    added = {
        key: [sum(column) for column in zip(*(one[key] for one in rounds if key in one), strict=True)] for key in sums
    }
    assert added == sums
    assert all(one <= 2**63 - 1 for addends in rounds for values in addends.values() for one in values)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0", "0"),
        ("0.000", "0"),
        ("1E+5", "100000"),
        ("1E-18", "0.000000000000000001"),
        ("0.00010000", "0.0001"),
        ("9999.9999", "9999.9999"),
        ("10000", "10000"),
        ("-12345.6780", "-12345.678"),
    ],
)
def test_numbers_are_stored_without_zeros_at_their_end(connection: psycopg.Connection, number: str, text: str) -> None:
    (found,) = stored(connection, "numeric", copy_binary.numeric_field(Decimal(number)))

    assert f"{found:f}" == text


histograms = st.dictionaries(st.integers(0, 700), st.integers(1, 10**12 - 1), max_size=20)


@settings(max_examples=100)
@given(histograms)
def test_counts_by_bucket_come_back_as_one_number(connection: psycopg.Connection, counts: dict[int, int]) -> None:
    (number,) = stored(connection, "numeric", copy_binary.histogram_field(counts))
    packed = connection.execute("SELECT numeric_send(c0) FROM packed").fetchone()

    assert number == sum(count * 10 ** (DIGITS_PER_BUCKET * bucket) for bucket, count in counts.items())
    assert packed is not None
    assert counts_in(packed[0]) == counts


def test_numbers_add_up_as_their_counts_do(connection: psycopg.Connection) -> None:
    one, other = {0: 9_999, 3: 10**8 - 1, 5: 7}, {0: 1, 3: 1, 4: 10**11, 700: 2}
    fields = (copy_binary.histogram_field(counts) for counts in (one, other))
    stored(connection, "numeric numeric", *fields)

    total = connection.execute("SELECT numeric_send(c0 + c1) FROM packed").fetchone()

    assert total is not None
    assert counts_in(total[0]) == {0: 10_000, 3: 10**8, 4: 10**11, 5: 7, 700: 2}
