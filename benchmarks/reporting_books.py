"""Books of 90 days for the benchmark of reporting, as the ledger writes them, quickly.

Today and yesterday are recorded by the ledger's own code: validated, priced, added up. Every earlier day is yesterday
once more, moved by whole days in SQL: rows of detail with their ids and times, rows of figures with their day or hour.
What is added up by hour and day is a sum over calls of that day, so a day that is moved is what the ledger would have
written of its calls. What no reader looks at is left out: keys, journal, balances.
"""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import psycopg

from services.common.authentication import Scope, hash_key
from services.ledger.prices.price_book import PriceBook, PriceVersion
from services.ledger.pricing import Prices, Rates, Unit
from services.ledger.retention.retention import Place
from services.ledger.storage.partitions import of_detail
from services.ledger.storage.usage.contents import prepare
from services.ledger.storage.usage.ingest import Ingest
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.recording import priced
from tollgate.ledger.v1.usage_pb2 import FUNDING_CREDITS, Attempt, Usage, UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest

DAYS = 90
RETENTION_DAYS = 90
DAY = timedelta(days=1)
BATCH_SIZE = 1_000
LOADERS = 2
PROJECTS = ("web", "app", "batch", "search", "support")
PROVIDERS = ("openai", "anthropic", "google", "azure")
MODELS = [(PROVIDERS[number % len(PROVIDERS)], f"model-{number}") for number in range(20)]
FAILING = 49  # one call of so many fails, of every combination in turn
PRICES = Prices(
    base=Rates(
        {
            Unit.INPUT_TOKEN: Decimal("0.0000025"),
            Unit.CACHED_INPUT_TOKEN: Decimal("0.00000125"),
            Unit.OUTPUT_TOKEN: Decimal("0.00001"),
        }
    )
)
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# Tables of figures, and the column that says when.
_BY_DAY = {"usage_hour": "hour", "usage_day": "day", "latency_day": "day", "failure_day": "day", "record_day": "day"}


@dataclass(frozen=True, slots=True)
class Books:
    """An organization on the plan of 90 days, with calls on each of them."""

    organization_id: str
    secret: str
    record_count: int


def write_books(admin_url: str, ledger_url: str, record_count: int) -> Books:
    """Writes so many records into an empty database."""
    organization_id, secret, key_ids = str(uuid4()), f"tg_{uuid4()}", [str(uuid4()) for _ in PROJECTS]
    with psycopg.connect(ledger_url, autocommit=True, options="-c timezone=UTC") as connection:
        _add_accounts(connection, organization_id, secret, key_ids)
        now, per_day = datetime.now(UTC), record_count // DAYS
        midnight = datetime.combine(now.date(), time(), UTC)
        _record(connection, _calls(organization_id, key_ids, per_day, midnight, now), now)
        _record(connection, _calls(organization_id, key_ids, per_day, midnight - DAY, midnight), now)
        for number in range(1, DAYS - 1):
            Ingest().prepare_day(connection, organization_id, now.date() - DAY - number * DAY)
    _move_day(admin_url, now.date() - DAY)
    return Books(organization_id, secret, per_day * DAYS)


def _add_accounts(connection: psycopg.Connection, organization_id: str, secret: str, key_ids: Sequence[str]) -> None:
    connection.execute(
        "INSERT INTO ledger.organization VALUES (%s, 'Acme', 2, %s, false, %s)",
        (organization_id, RETENTION_DAYS, _LONG_AGO),
    )
    connection.execute(
        "INSERT INTO ledger.organization_plan (organization_id, valid_from, plan, retention_days)"
        " VALUES (%s, %s, 2, %s)",
        (organization_id, _LONG_AGO, RETENTION_DAYS),
    )
    for project_id in PROJECTS:
        connection.execute(
            "INSERT INTO ledger.project (organization_id, project_id, mode, create_time) VALUES (%s, %s, 1, %s)",
            (organization_id, project_id, _LONG_AGO),
        )
    connection.execute(
        """
        INSERT INTO ledger.api_key
               (key_hash, api_key_id, scope, organization_id, read_only, display_name, create_time)
        VALUES (%s, %s, %s, %s, false, '', %s)
        """,
        (hash_key(secret), key_ids[0], Scope.ORGANIZATION, organization_id, _LONG_AGO),
    )


def _calls(
    organization_id: str, key_ids: Sequence[str], count: int, begin: datetime, end: datetime
) -> Iterator[UsageRecord]:
    """Calls of a stretch of time. Each combination of project and model comes equally often, whatever the count."""
    for number in range(count):
        project = number % len(PROJECTS)
        provider, model = MODELS[number // len(PROJECTS) % len(MODELS)]
        at = begin + random.random() * (end - begin)
        values: dict[str, Any] = {
            "request_id": _id_at(at),
            "organization_id": organization_id,
            "project_id": PROJECTS[project],
            "api_key_id": key_ids[project],
            "endpoint": 1,
            "requested_model": model,
            "model": model,
            "provider": provider,
            "start_time": at,
            "latency_ms": 200 + number % 5_000,
            "funding": FUNDING_CREDITS,
            "metadata": {"user": f"user-{number % 1_000}"},
            "attempts": [Attempt(provider=provider, upstream_model=model, funding=FUNDING_CREDITS, status=200)],
        }
        yield UsageRecord(**values, **_end_of(number))


def _end_of(number: int) -> dict[str, Any]:
    if number % FAILING == 0:
        return {"outcome": 2, "status": 502, "error_type": "status"}
    usage = Usage(input_tokens=1_000 + number % 997, output_tokens=number % 499)
    first_token = {"time_to_first_token_ms": 100 + number % 800}
    return {"outcome": 1, "status": 200, "usage": usage, "usage_source": 1, **first_token}


def _id_at(moment: datetime) -> str:
    milliseconds = int(moment.timestamp() * 1_000)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | uuid4().int & ((1 << 76) - 1)))


def _record(connection: psycopg.Connection, calls: Iterator[UsageRecord], receipt_time: datetime) -> None:
    """As the ledger records what a router sends."""
    prepare_session(connection)
    ingest = Ingest()
    book = PriceBook(
        [PriceVersion(number, *model, _LONG_AGO, "operator", PRICES) for number, model in enumerate(MODELS, 1)], []
    )
    while batch := list(islice(calls, BATCH_SIZE)):
        delivery = delivery_from_proto(RecordUsageRequest(records=batch), receipt_time)
        for received in delivery.received:
            assert received.record is not None, received.problem
            received.priced = priced(received.record, book)
        ingest.record(connection, prepare([delivery]), receipt_time)


def _move_day(admin_url: str, day: date) -> None:
    """Writes the day again for each of those before it. Rows that passed the table's checks are not checked again."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        for check in ("lines_add_up", "lines_are_whole"):
            connection.execute(f"ALTER TABLE ledger.usage_record DROP CONSTRAINT usage_record_{check}".encode())
    with ThreadPoolExecutor(LOADERS) as pool:
        list(pool.map(partial(_move_by, admin_url, day), range(1, DAYS - 1)))
    with psycopg.connect(admin_url, autocommit=True) as connection:
        for table in _BY_DAY:
            connection.execute(f"VACUUM (ANALYZE) ledger.{table}".encode())
        # Detail has many partitions with the same in all of them: a small sample of each will do.
        connection.execute("SET default_statistics_target = 10")
        connection.execute("ANALYZE ledger.usage_record")


def _move_by(admin_url: str, day: date, number: int) -> None:
    with psycopg.connect(admin_url, options="-c timezone=UTC") as connection:
        _move_detail(connection, day, number)
        for table, moment in _BY_DAY.items():
            _move_figures(connection, table, moment, day, number)


def _columns(connection: psycopg.Connection, table: str) -> list[str]:
    query = """
        SELECT attname FROM pg_attribute
         WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
    """
    return [name for (name,) in connection.execute(query, (f"ledger.{table}",))]


def _move_detail(connection: psycopg.Connection, day: date, number: int) -> None:
    """From partition to partition. The id begins with the milliseconds of the start, 48 bits of them."""
    origin, target = (of_detail(Place(RETENTION_DAYS, one)).name for one in (day, day - number * DAY))
    digits = "replace(request_id::text, '-', '')"
    milliseconds = f"('x' || substr({digits}, 1, 12))::bit(48)::bigint - {number} * 86400000::bigint"
    moved = {
        "request_day": f"request_day - {number}",
        "start_time": f"start_time - interval '{number} days'",
        "request_id": f"(lpad(to_hex({milliseconds}), 12, '0') || substr({digits}, 13))::uuid",
    }
    connection.execute(f"ALTER TABLE ledger.{target} SET UNLOGGED".encode())
    _insert(connection, origin, target, moved, "true ORDER BY organization_id, request_id")


def _move_figures(connection: psycopg.Connection, table: str, moment: str, day: date, number: int) -> None:
    is_hour = moment == "hour"
    moved = f"hour - interval '{number} days'" if is_hour else f"day - {number}"
    of_day = f"hour >= '{day}' AND hour < '{day + DAY}'" if is_hour else f"day = '{day}'"
    _insert(connection, table, table, {moment: moved}, of_day)


def _insert(connection: psycopg.Connection, origin: str, target: str, moved: dict[str, str], condition: str) -> None:
    """Rows of a table once more, with other values in some columns."""
    columns = _columns(connection, origin)
    values = ", ".join(moved.get(name, name) for name in columns)
    query = f"INSERT INTO ledger.{target} ({', '.join(columns)}) SELECT {values} FROM ledger.{origin} WHERE {condition}"
    connection.execute(query.encode())
