"""Record keys, usage records and hourly figures in PostgreSQL. Works inside its caller's transaction."""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection

from services.ledger.pricing import CostLine, Line
from services.ledger.storage import copy_binary, packed_arrays
from services.ledger.storage.copy_binary import FixedArrays, FixedFields, NullableFields
from services.ledger.storage.packed_arrays import ByteaArray, DateArray, PackedArray, UuidArray
from services.ledger.storage.usage import daily, day_figures
from services.ledger.usage.records import Kind, PricedRecord, RecordedUsage, UsageRecord
from services.ledger.usage.rollups import FIGURES, Figures, HourKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date()
_MICROSECOND = timedelta(microseconds=1)
_MS_PER_DAY = 86_400_000
_US_PER_DAY = _MS_PER_DAY * 1_000


def day_of_id(request_id: str) -> int:
    """The day in UTC, in days since 1970, of the time in a request id."""
    return int(request_id[:8] + request_id[9:13], 16) // _MS_PER_DAY


def start_day(record: UsageRecord) -> int:
    """The day in UTC that a call started on, in days since 1970. Its detail lies and is counted there."""
    return record.start_us // _US_PER_DAY


def date_of(days: int) -> date:
    """The date, so many days after 1970 began."""
    return _EPOCH_DAY + timedelta(days=days)


# Keys

_CLAIM_KEYS = """
    INSERT INTO ledger.record_key (organization_id, request_day, request_id, content_hash, batch_id)
    SELECT organization_id, request_day, request_id, content_hash, %s
      FROM unnest(%s, %s, %s, %s) AS claimed (organization_id, request_day, request_id, content_hash)
     ORDER BY 1, 2, 3
    ON CONFLICT (organization_id, request_day, request_id)
"""
# Counts those that were not there. Waits for whoever is writing any of them, as the next one does.
_CLAIM_NEW_KEYS = f"{_CLAIM_KEYS} DO NOTHING"
# The update changes nothing; it makes the rows that are there come back.
_TELL_KEYS = f"""
    {_CLAIM_KEYS} DO UPDATE SET content_hash = record_key.content_hash
    RETURNING organization_id, request_id, content_hash, batch_id
"""
_DAY = struct.Struct("!I").pack
_DATE = struct.Struct("!i").pack


def prepare_session(connection: Connection) -> None:
    """Makes what a connection needs before its first batch."""
    packed_arrays.prepare_session(connection)
    connection.execute(_CREATE_HOUR_STAGING)
    daily.prepare_session(connection)
    day_figures.prepare_session(connection)


def key_bytes(record: UsageRecord) -> bytes:
    """What makes a record the one it is: organization, day of the id, and id. Sorts as the database does."""
    return (
        copy_binary.uuid_bytes(record.organization_id)
        + _DAY(record.request_day)
        + bytes.fromhex(record.request_id.replace("-", ""))
    )


class PackedKeys(NamedTuple):
    """Columns of `record_key`."""

    organization_ids: PackedArray
    request_days: PackedArray
    request_ids: PackedArray
    content_hashes: PackedArray


def pack_keys(keys: Sequence[bytes], content_hashes: Sequence[bytes]) -> PackedKeys:
    """Keys as `key_bytes` makes them, sorted and distinct, at least one; as `claim_keys` takes them."""
    return PackedKeys(
        UuidArray.of([key[:16] for key in keys]),
        DateArray.of([_DATE(copy_binary.date_value(int.from_bytes(key[16:20]))) for key in keys]),
        UuidArray.of([key[20:] for key in keys]),
        ByteaArray.of(content_hashes),
    )


def claim_keys(connection: Connection, keys: PackedKeys, count: int, batch_id: UUID) -> dict[bytes, bytes]:
    """Claims keys, so many, for this batch.

    Returns those that another batch holds, with the content hash it holds them by. Waits for batches that are writing
    any of them right now.
    """
    if connection.execute(_CLAIM_NEW_KEYS, (batch_id, *keys)).rowcount == count:
        return {}
    return _held_by_others(connection, keys, batch_id)


def _held_by_others(connection: Connection, keys: PackedKeys, batch_id: UUID) -> dict[bytes, bytes]:
    result = connection.cursor(binary=True).execute(_TELL_KEYS, (batch_id, *keys)).pgresult
    if result is None:
        raise RuntimeError("a statement that returns rows returned nothing")
    held: dict[bytes, bytes] = {}
    own = batch_id.bytes
    # Rows of our own come back too, so the driver is not asked to convert all of them.
    for row in range(result.ntuples):
        if result.get_value(row, 3) != own:
            organization_id, request_id, content_hash = (result.get_value(row, column) or b"" for column in range(3))
            day = int.from_bytes(request_id[:6]) // _MS_PER_DAY
            held[organization_id + _DAY(day) + request_id] = content_hash
    return held


# Records

# All but the first two are known before the transaction begins.
_COLUMNS = """
    retention_class, batch_id,
    organization_id, api_key_id, endpoint, outcome, funding, usage_source, status, streamed, cache_hit,
    payload_retained, project_id, workflow, requested_model, model, provider, error_type, service_tier,
    request_day, request_id, start_time, latency_ms, unpriced, saved_pico, charged_pico,
    cost_pico, price_version_id, time_to_first_token_ms,
    input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, input_audio_tokens,
    cached_input_audio_tokens, input_image_tokens, reasoning_tokens, output_image_tokens, output_audio_tokens,
    input_images, web_searches, output_images, cached_input_image_tokens,
    flags, discount, metadata, attempts, output_image_kinds,
    line, line_charged, line_unit_price, line_discount, line_quantity, line_cost_pico, line_list_cost_pico
"""
_COPY_RECORDS = f"COPY ledger.usage_record ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_RECORD_ROW_HEAD = copy_binary.row_head(_COLUMNS.count(",") + 1)
_PLACE_FIELDS = FixedFields("int2", "uuid")
_KIND_FIELDS = FixedFields("uuid", "uuid", *["int2"] * 5, *["bool"] * 3)
_RECORD_FIELDS = NullableFields(
    *("date", "uuid", "timestamptz", "int4", "bool", "int8", "int8"),
    *("int8", "int8", "int4"),
    *["int8"] * 14,
)
_NO_QUANTITIES = (None,) * 14
_INT8 = FixedFields("int8")
_FLAGS = FixedArrays("int2")
_NO_FLAGS = _FLAGS(())
_LINE_KINDS = FixedArrays("int2", "bool")
_INT8_ARRAY = FixedArrays("int8")
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
    rows.append(copy_binary.END)
    with connection.cursor().copy(_COPY_RECORDS) as copy:
        copy.write(b"".join(rows))


def pack_record(priced_record: PricedRecord) -> bytes:
    """The record's row, but for what is known only when it is written."""
    return b"".join(_record_fields(priced_record))


def _record_fields(priced_record: PricedRecord) -> tuple[bytes, ...]:
    record, priced, version_id, discount = priced_record
    usage = record.usage
    return (
        _kind_fields(record.kind),
        _RECORD_FIELDS(
            copy_binary.date_value(start_day(record)),
            bytes.fromhex(record.request_id.replace("-", "")),
            copy_binary.timestamp_value(record.start_us),
            record.latency_ms,
            priced.unpriced,
            priced.saved_pico,
            priced.charged_pico,
            priced.cost_pico,
            version_id,
            record.time_to_first_token_ms,
            *(_NO_QUANTITIES if usage is None else _quantities(usage)),
        ),
        _cached_images(usage),
        _FLAGS(record.flags) if record.flags else _NO_FLAGS,
        copy_binary.numeric_field(discount),
        copy_binary.jsonb_field(record.metadata) if record.metadata else _EMPTY_OBJECT,
        copy_binary.jsonb_field(record.attempts),
        _output_image_kinds(usage),
        _line_fields(priced.lines),
    )


@lru_cache(maxsize=8_192)
def _kind_fields(kind: Kind) -> bytes:
    """What calls of one kind have in common."""
    # fmt: off
    (
        organization_id, project_id, api_key_id, endpoint, requested_model, model, provider, outcome, status,
        error_type, funding, usage_source, service_tier, streamed, cache_hit, workflow, payload_retained,
    ) = kind
    # fmt: on
    fixed = _KIND_FIELDS(
        copy_binary.uuid_bytes(organization_id),
        copy_binary.uuid_bytes(api_key_id),
        *(endpoint, outcome, funding, usage_source, status),
        *(streamed, cache_hit, payload_retained),
    )
    names = (project_id, workflow, requested_model, model, provider, error_type, service_tier)
    return fixed + b"".join(map(copy_binary.text_field, names))


def _quantities(usage: RecordedUsage) -> tuple[int, ...]:
    images = usage.output_images
    return (*usage[:-2], sum(kind.count for kind in images) if images else 0)


def _cached_images(usage: RecordedUsage | None) -> bytes:
    count = None if usage is None else usage.cached_input_image_tokens
    return copy_binary.NULL if count is None else _INT8(count)


def _output_image_kinds(usage: RecordedUsage | None) -> bytes:
    if usage is None or not usage.output_images:
        return copy_binary.NULL
    return copy_binary.jsonb_field(usage.output_images)


def _line_fields(lines: Sequence[CostLine]) -> bytes:
    columns = zip(*lines, strict=True) if lines else _NO_LINES
    # In the order of a CostLine's fields.
    kinds, quantities, unit_prices, discounts, costs, list_costs, charged = columns
    return _line_terms(kinds, charged, unit_prices, discounts) + _line_amounts(quantities, costs, list_costs)


def _line_amounts(quantities: Sequence[int], costs: Sequence[int], list_costs: Sequence[int]) -> bytes:
    """What `FixedArrays` says of three arrays of int8, in half its time."""
    pack, template, head = _amounts_of(len(quantities))
    arguments = template.copy()
    # Of widths, which are known, and what is only known here, by turns.
    arguments[1::2] = (head, *quantities, head, *costs, head, *list_costs)
    return pack(*arguments)


@lru_cache(maxsize=256)
def _amounts_of(length: int) -> tuple[Callable[..., bytes], list[object], bytes]:
    """How to pack three arrays of so many amounts: the packer, the widths, and the head of an array."""
    zeros = _INT8_ARRAY([0] * length)
    # Without the width of the field before it, and the elements after it.
    head = zeros[4 : len(zeros) - 12 * length]
    form = "!" + (f"i{len(head)}s" + "iq" * length) * 3
    return struct.Struct(form).pack, [len(zeros) - 4, None, *(8, None) * length] * 3, head


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


def add_figures(connection: Connection, hours: Mapping[HourKey, Figures]) -> None:
    """Adds to the figures that are there, by hour and by day."""
    write_figures(connection, pack_figures(hours))


def pack_figures(hours: Mapping[HourKey, Figures]) -> list[bytes]:
    """The figures as `write_figures` takes them. A batch's sums may be larger than any of its amounts."""
    return [_packed_figures(one) for one in copy_binary.in_rounds(hours)]


def _packed_figures(hours: Mapping[HourKey, Sequence[int]]) -> bytes:
    rows = [copy_binary.BEGIN]
    for key, figures in hours.items():
        rows += (
            _HOUR_ROW_HEAD,
            _HOUR_FIELDS(
                copy_binary.uuid_bytes(key.organization_id),
                copy_binary.timestamp_value((key.hour - _EPOCH) // _MICROSECOND),
                copy_binary.uuid_bytes(key.api_key_id),
                key.funding,
                *figures,
            ),
            copy_binary.text_field(key.project_id),
            copy_binary.text_field(key.model),
            copy_binary.text_field(key.provider),
            copy_binary.text_field(key.workflow),
        )
    rows.append(copy_binary.END)
    return b"".join(rows)


def write_figures(connection: Connection, rounds: Iterable[bytes]) -> None:
    for number, packed in enumerate(rounds):
        if number:
            connection.execute(_CLEAR_HOUR_STAGING)
        with connection.cursor().copy(_STAGE_HOURS) as copy:
            copy.write(packed)
        connection.execute(_ADD_HOURS)
        connection.execute(day_figures.ADD_SUMS)
