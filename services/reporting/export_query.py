"""The SQL of exported calls: PostgreSQL writes the lines itself, so that a million of them cost little.

The fields are those of `RequestSummary`, with exact amounts.
"""

from typing import Any
from uuid import UUID

from google.protobuf.descriptor import EnumDescriptor
from sqlalchemy import ColumnElement, Numeric, Select, String, case, cast, func, literal, literal_column, select
from sqlalchemy.sql.selectable import Subquery

from services.reporting.files import FORMULA_STARTS
from services.reporting.request_query import Listing, matching
from services.reporting.views import usage_record
from tollgate.ledger.v1 import usage_pb2

_PICO = literal_column("0.000000000001", Numeric)
_TIME_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
# The options of a COPY, and what it copies.
Copy = tuple[str, Select[Any]]

# JSON escapes these, so no line of JSON holds one, and none is put in quotes.
_JSON_LINES = r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02'"


def csv_copy(listing: Listing, before: UUID | None, limit: int | None) -> Copy:
    """The options of a COPY, and what it copies."""
    return "FORMAT csv, HEADER", _calls(listing, before, limit, harmless=True)


def jsonl_copy(listing: Listing, before: UUID | None, limit: int | None) -> Copy:
    """The options of a COPY, and what it copies."""
    calls: Subquery = _calls(listing, before, limit, harmless=False).subquery("call")
    return _JSON_LINES, select(func.row_to_json(literal_column("call")).label("line")).select_from(calls)


def _calls(listing: Listing, before: UUID | None, limit: int | None, *, harmless: bool) -> Select[Any]:
    columns = usage_record.c

    def text(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return _harmless(column) if harmless else column

    metadata = columns.metadata
    shown = {
        "id": columns.request_id,
        "timestamp": func.to_char(func.timezone("UTC", columns.start_time), _TIME_FORMAT),
        "project_id": text(columns.project_id),
        "api_key_id": columns.api_key_id,
        "endpoint": _word(columns.endpoint, usage_pb2.Endpoint.DESCRIPTOR, "ENDPOINT_"),
        "workflow": text(columns.workflow),
        "requested_model": text(columns.requested_model),
        "model": text(columns.model),
        "provider": text(columns.provider),
        "status": columns.status,
        "error": text(columns.error_type),
        "latency_ms": columns.latency_ms,
        "time_to_first_token_ms": columns.time_to_first_token_ms,
        "streamed": cast(columns.streamed, String) if harmless else columns.streamed,
        "cached": cast(columns.cache_hit, String) if harmless else columns.cache_hit,
        "funding": _word(columns.funding, usage_pb2.Funding.DESCRIPTOR, "FUNDING_"),
        "input_tokens": columns.input_tokens,
        "output_tokens": columns.output_tokens,
        "cost": _usd(columns.cost_pico),
        "charged": _usd(columns.charged_pico),
        "saved": _usd(columns.saved_pico),
        "attempt_count": func.jsonb_array_length(columns.attempts),
        "metadata": cast(metadata, String) if harmless else metadata,
    }
    statement = select(*(column.label(name) for name, column in shown.items())).where(*matching(listing))
    if before is not None:
        statement = statement.where(columns.request_id < before)
    return statement.order_by(columns.request_id.desc()).limit(limit)


def _harmless(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((func.left(column, 1).in_(FORMULA_STARTS), literal("'").concat(column)), else_=column)


def _usd(pico: ColumnElement[Any]) -> ColumnElement[Any]:
    """A decimal number, exact and without zeros at its end; in JSON a string."""
    return cast(func.trim_scale(cast(pico, Numeric) * _PICO), String)


def _word(column: ColumnElement[Any], enum: EnumDescriptor, prefix: str) -> ColumnElement[Any]:
    """A value of an enumeration in REST's spelling."""
    words = [(column == value.number, value.name.removeprefix(prefix).lower()) for value in enum.values if value.number]
    return case(*words, else_="")
