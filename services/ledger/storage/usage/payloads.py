"""Retained payloads in PostgreSQL. Works inside its caller's transaction."""

from collections.abc import Iterable

from psycopg import Connection

from services.ledger.storage import copy_binary
from services.ledger.storage.copy_binary import FixedFields
from services.ledger.storage.usage.usage import start_day
from services.ledger.usage.records import Payload, UsageRecord

_COPY = """
    COPY ledger.payload (
        retention_class, request_day, organization_id, request_id, start_time, request_truncated, response_truncated,
        request_content_type, response_content_type, request_body, response_body
    ) FROM STDIN (FORMAT BINARY)
"""
_ROW_HEAD = copy_binary.row_head(11)
_CLASS_FIELD = FixedFields("int2")
_FIELDS = FixedFields("date", "uuid", "uuid", "timestamptz", "bool", "bool")


def copy_payloads(connection: Connection, payloads: Iterable[tuple[int, bytes]]) -> None:
    """Adds payloads as `pack_payload` makes them, each with the class of its record. The partitions must exist."""
    with connection.cursor().copy(_COPY) as copy:
        copy.write(copy_binary.BEGIN)
        # One by one: together they may be large.
        for retention_class, packed in payloads:
            copy.write(_ROW_HEAD + _CLASS_FIELD(retention_class) + packed)
        copy.write(copy_binary.END)


def pack_payload(record: UsageRecord, payload: Payload) -> bytes:
    """The payload's row, but for the retention class, which is known only when it is written."""
    fields = (
        _FIELDS(
            copy_binary.date_value(start_day(record)),
            copy_binary.uuid_bytes(record.organization_id),
            bytes.fromhex(record.request_id.replace("-", "")),
            copy_binary.timestamp_value(record.start_us),
            payload.request_truncated,
            payload.response_truncated,
        ),
        copy_binary.text_field(payload.request_content_type),
        copy_binary.text_field(payload.response_content_type),
        copy_binary.bytes_field(payload.request_body),
        copy_binary.bytes_field(payload.response_body),
    )
    return b"".join(fields)
