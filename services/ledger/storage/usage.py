"""Record keys, usage records and hourly figures in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection

from services.ledger.pricing import CostLine, Line
from services.ledger.records import PricedRecord, RecordedUsage, UsageRecord
from services.ledger.rollups import FIGURES, Figures, HourKey
from services.ledger.storage import copy_binary, daily, day_figures
from services.ledger.storage.copy_binary import FixedArrays, FixedFields

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date()
_MICROSECOND = timedelta(microseconds=1)
_MS_PER_DAY = 86_400_000
_US_PER_DAY = _MS_PER_DAY * 1_000


class KeyOfRecord(NamedTuple):
    """What makes a record the one it is. Sorts as the database sorts it."""

    organization_id: str
    # Days since 1970, in UTC, of the time in the request id.
    request_day: int
    request_id: str


def key_of(organization_id: str, request_id: str) -> KeyOfRecord:
    milliseconds = int(request_id[:8] + request_id[9:13], 16)
    return KeyOfRecord(organization_id, milliseconds // _MS_PER_DAY, request_id)


def start_day(record: UsageRecord) -> int:
    """The day in UTC that a call started on, in days since 1970. Its detail lies and is counted there."""
    return record.start_us // _US_PER_DAY


def date_of(days: int) -> date:
    """The date, so many days after 1970 began."""
    return _EPOCH_DAY + timedelta(days=days)


# Keys

_CREATE_STAGING = """
    CREATE TEMPORARY TABLE IF NOT EXISTS record_key_staging (
        organization_id UUID, request_day DATE, request_id UUID, content_hash BYTEA, batch_id UUID
    ) ON COMMIT DELETE ROWS;
"""
_STAGE_KEYS = "COPY pg_temp.record_key_staging FROM STDIN (FORMAT BINARY)"
# The update changes nothing; it makes the row that is there come back, and waits for whoever is writing it.
_CLAIM_KEYS = """
    INSERT INTO ledger.record_key (organization_id, request_day, request_id, content_hash, batch_id)
    SELECT organization_id, request_day, request_id, content_hash, batch_id
      FROM pg_temp.record_key_staging
     ORDER BY 1, 2, 3
    ON CONFLICT (organization_id, request_day, request_id) DO UPDATE SET content_hash = record_key.content_hash
    RETURNING organization_id, request_id, content_hash, batch_id
"""
_KEY_ROW_HEAD = copy_binary.row_head(5)
_KEY_FIELDS = FixedFields("uuid", "date", "uuid")
_UUID_FIELD = FixedFields("uuid")


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    connection.execute(_CREATE_STAGING)
    connection.execute(_CREATE_HOUR_STAGING)
    daily.prepare_session(connection)
    day_figures.prepare_session(connection)


def claim_keys(
    connection: Connection, keys: Sequence[KeyOfRecord], content_hashes: Sequence[bytes], batch_id: UUID
) -> dict[KeyOfRecord, bytes]:
    """Claims the keys, which are sorted and distinct, for this batch.

    Returns those that another batch holds, with the content hash it holds them by. Waits for batches that are writing
    any of them right now.
    """
    batch_field = _UUID_FIELD(batch_id.bytes)
    rows = [copy_binary.BEGIN]
    for (organization_id, day, request_id), content_hash in zip(keys, content_hashes, strict=True):
        rows += (
            _KEY_ROW_HEAD,
            _KEY_FIELDS(
                copy_binary.uuid_bytes(organization_id),
                copy_binary.date_value(day),
                bytes.fromhex(request_id.replace("-", "")),
            ),
            copy_binary.bytes_field(content_hash),
            batch_field,
        )
    _copy(connection, _STAGE_KEYS, rows)
    return _held_by_others(connection, batch_id)


def _held_by_others(connection: Connection, batch_id: UUID) -> dict[KeyOfRecord, bytes]:
    result = connection.cursor(binary=True).execute(_CLAIM_KEYS).pgresult
    if result is None:
        raise RuntimeError("a statement that returns rows returned nothing")
    held: dict[KeyOfRecord, bytes] = {}
    # A thousand rows come back and next to none matters, so the driver is not asked to convert them.
    for row in range(result.ntuples):
        if result.get_value(row, 3) != batch_id.bytes:
            organization_id, request_id, content_hash = (result.get_value(row, column) or b"" for column in range(3))
            key = key_of(str(UUID(bytes=organization_id)), str(UUID(bytes=request_id)))
            held[key] = content_hash
    return held


# Records

# All but the first two are known before the transaction begins.
_COLUMNS = """
    retention_class, batch_id,
    request_day, organization_id, request_id, api_key_id, start_time, endpoint, outcome, funding, usage_source, status,
    streamed, cache_hit, payload_retained, unpriced, latency_ms, saved_pico, charged_pico,
    cost_pico, price_version_id, time_to_first_token_ms,
    input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, input_audio_tokens,
    cached_input_audio_tokens, input_image_tokens, reasoning_tokens, output_image_tokens, output_audio_tokens,
    input_images, web_searches, output_images, cached_input_image_tokens,
    project_id, workflow, requested_model, model, provider, error_type, service_tier,
    flags, discount, metadata, attempts, output_image_kinds,
    line, line_charged, line_unit_price, line_discount, line_quantity, line_cost_pico, line_list_cost_pico
"""
_COPY_RECORDS = f"COPY ledger.usage_record ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_RECORD_ROW_HEAD = copy_binary.row_head(_COLUMNS.count(",") + 1)
_PLACE_FIELDS = FixedFields("int2", "uuid")
_RECORD_FIELDS = FixedFields(
    *("date", "uuid", "uuid", "uuid", "timestamptz"),
    *("int2", "int2", "int2", "int2", "int2", "bool", "bool", "bool", "bool", "int4", "int8", "int8"),
)
_USAGE_FIELDS = FixedFields(*["int8"] * 14)
_NO_USAGE = copy_binary.NULL * 15
_INT4, _INT8 = FixedFields("int4"), FixedFields("int8")
_FLAGS = FixedArrays("int2")
_NO_FLAGS = _FLAGS(())
_LINE_KINDS = FixedArrays("int2", "bool")
_LINE_AMOUNTS = FixedArrays("int8", "int8", "int8")
_NO_LINES: tuple[tuple[Any, ...], ...] = ((),) * len(CostLine._fields)
_EMPTY_OBJECT = copy_binary.jsonb_field({})


def copy_records(connection: Connection, records: Iterable[tuple[int, bytes]], batch_id: UUID) -> None:
    """Adds records as `pack_record` makes them, each with its retention class. Their partitions must exist."""
    heads: dict[int, bytes] = {}
    rows = [copy_binary.BEGIN]
    for retention_class, packed in records:
        head = heads.get(retention_class)
        if head is None:
            head = heads[retention_class] = _RECORD_ROW_HEAD + _PLACE_FIELDS(retention_class, batch_id.bytes)
        rows += (head, packed)
    _copy(connection, _COPY_RECORDS, rows)


def pack_record(priced_record: PricedRecord) -> bytes:
    """The record's row, but for what is known only when it is written."""
    return b"".join(_record_fields(priced_record))


def _record_fields(priced_record: PricedRecord) -> tuple[bytes, ...]:
    record, priced = priced_record.record, priced_record.priced
    return (
        _RECORD_FIELDS(
            copy_binary.date_value(start_day(record)),
            copy_binary.uuid_bytes(record.organization_id),
            bytes.fromhex(record.request_id.replace("-", "")),
            copy_binary.uuid_bytes(record.api_key_id),
            copy_binary.timestamp_value(record.start_us),
            record.endpoint,
            record.outcome,
            record.funding,
            record.usage_source,
            record.status,
            record.streamed,
            record.cache_hit,
            record.payload_retained,
            priced.unpriced,
            record.latency_ms,
            priced.saved_pico,
            priced.charged_pico,
        ),
        copy_binary.NULL if priced.cost_pico is None else _INT8(priced.cost_pico),
        copy_binary.NULL if priced_record.price_version_id is None else _INT8(priced_record.price_version_id),
        copy_binary.NULL if record.time_to_first_token_ms is None else _INT4(record.time_to_first_token_ms),
        _NO_USAGE if record.usage is None else _usage_fields(record.usage),
        _names(
            record.project_id,
            record.workflow,
            record.requested_model,
            record.model,
            record.provider,
            record.error_type,
            record.service_tier,
        ),
        _FLAGS(record.flags) if record.flags else _NO_FLAGS,
        copy_binary.numeric_field(priced_record.discount),
        copy_binary.jsonb_field(record.metadata) if record.metadata else _EMPTY_OBJECT,
        copy_binary.jsonb_field(record.attempts),
        _output_image_kinds(record.usage),
        _line_fields(priced.lines),
    )


@lru_cache(maxsize=8_192)
def _names(*names: str) -> bytes:
    """What calls of one kind have in common."""
    return b"".join(map(copy_binary.text_field, names))


def _usage_fields(usage: RecordedUsage) -> bytes:
    *quantities, cached_images, images = usage
    image_count = sum(kind.count for kind in usage.output_images) if images else 0
    fields = _USAGE_FIELDS(*quantities, image_count)
    return fields + (copy_binary.NULL if cached_images is None else _INT8(cached_images))


def _output_image_kinds(usage: RecordedUsage | None) -> bytes:
    if usage is None or not usage.output_images:
        return copy_binary.NULL
    return copy_binary.jsonb_field(usage.output_images)


def _line_fields(lines: Sequence[CostLine]) -> bytes:
    columns = zip(*lines, strict=True) if lines else _NO_LINES
    # In the order of a CostLine's fields.
    kinds, quantities, unit_prices, discounts, costs, list_costs, charged = columns
    return _line_terms(kinds, charged, unit_prices, discounts) + _LINE_AMOUNTS(quantities, costs, list_costs)


@lru_cache(maxsize=8_192)
def _line_terms(
    kinds: tuple[Line, ...], charged: tuple[bool, ...], unit_prices: tuple[Decimal, ...], discounts: tuple[Decimal, ...]
) -> bytes:
    """What calls of one model have in common."""
    prices = copy_binary.numeric_array(unit_prices) + copy_binary.numeric_array(discounts)
    return _LINE_KINDS(kinds, charged) + prices


# Figures

_HOUR_KEY = ", ".join(HourKey._fields)
_HOUR_COLUMNS = f"{_HOUR_KEY}, {', '.join(FIGURES)}"
# Columns of fixed width come first: they are packed as one.
_CREATE_HOUR_STAGING = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS usage_hour_staging (
        organization_id UUID, hour TIMESTAMPTZ, api_key_id UUID, funding SMALLINT,
        {", ".join(f"{name} BIGINT" for name in FIGURES)},
        project_id TEXT, model TEXT, provider TEXT, workflow TEXT
    ) ON COMMIT DELETE ROWS;
"""
_STAGE_HOURS = "COPY pg_temp.usage_hour_staging FROM STDIN (FORMAT BINARY)"
# Sorted, so that two batches lock the rows they share in the same order.
_ADD_HOURS = f"""
    INSERT INTO ledger.usage_hour ({_HOUR_COLUMNS})
    SELECT {_HOUR_COLUMNS} FROM pg_temp.usage_hour_staging ORDER BY {_HOUR_KEY}
    ON CONFLICT ({_HOUR_KEY}) DO UPDATE
       SET {", ".join(f"{name} = usage_hour.{name} + excluded.{name}" for name in FIGURES)}
"""  # noqa: S608 columns of ours
_CLEAR_HOUR_STAGING = "TRUNCATE pg_temp.usage_hour_staging"
_HOUR_ROW_HEAD = copy_binary.row_head(len(HourKey._fields) + len(FIGURES))
_HOUR_FIELDS = FixedFields("uuid", "timestamptz", "uuid", "int2", *["int8"] * len(FIGURES))
_INT8_MAX = 2**63 - 1


def add_figures(connection: Connection, hours: Mapping[HourKey, Figures]) -> None:
    """Adds to the figures that are there, by hour and by day."""
    _add_figures(connection, hours)
    # A batch's sums may be larger than any of its amounts; what does not fit is added in another round.
    while rest := {key: _beyond(figures) for key, figures in hours.items() if max(figures) > _INT8_MAX}:
        connection.execute(_CLEAR_HOUR_STAGING)
        _add_figures(connection, rest)
        hours = rest


def _beyond(figures: Figures) -> Figures:
    return [max(0, figure - _INT8_MAX) for figure in figures]


def _add_figures(connection: Connection, hours: Mapping[HourKey, Figures]) -> None:
    """Of each figure, as much as fits."""
    rows = [copy_binary.BEGIN]
    for key, figures in hours.items():
        fitting = figures if max(figures) <= _INT8_MAX else [min(figure, _INT8_MAX) for figure in figures]
        rows += (
            _HOUR_ROW_HEAD,
            _HOUR_FIELDS(
                copy_binary.uuid_bytes(key.organization_id),
                copy_binary.timestamp_value((key.hour - _EPOCH) // _MICROSECOND),
                copy_binary.uuid_bytes(key.api_key_id),
                key.funding,
                *fitting,
            ),
            copy_binary.text_field(key.project_id),
            copy_binary.text_field(key.model),
            copy_binary.text_field(key.provider),
            copy_binary.text_field(key.workflow),
        )
    _copy(connection, _STAGE_HOURS, rows)
    connection.execute(_ADD_HOURS)
    connection.execute(day_figures.ADD_SUMS)


def _copy(connection: Connection, statement: str, rows: list[bytes]) -> None:
    rows.append(copy_binary.END)
    with connection.cursor().copy(statement) as copy:
        copy.write(b"".join(rows))
