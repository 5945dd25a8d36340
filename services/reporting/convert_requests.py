"""Single calls as the wire has them. Rows are those of `reporting.usage_record` and `reporting.cost_line`."""

from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.struct_pb2 import NULL_VALUE, Value
from sqlalchemy import Row

from services.common.money import nearest_double, usd_from_pico
from services.reporting.convert import time_to_wire
from services.reporting.payloads import body_from_compressed
from services.reporting.reader import WholeRequest
from services.reporting.views import USAGE
from tollgate.ledger.v1 import usage_pb2
from tollgate.reporting.v1 import request_service_pb2 as pb


def summary_to_proto(row: Row[Any]) -> pb.RequestSummary:
    return pb.RequestSummary(
        id=str(row.request_id),
        timestamp=time_to_wire(row.start_time),
        project_id=row.project_id,
        api_key_id=str(row.api_key_id),
        endpoint=_word(usage_pb2.Endpoint.DESCRIPTOR, "ENDPOINT_", row.endpoint),
        workflow=row.workflow,
        requested_model=row.requested_model,
        model=row.model,
        provider=row.provider,
        status=row.status,
        error=row.error_type,
        latency_ms=row.latency_ms,
        time_to_first_token_ms=_number_or_null(row.time_to_first_token_ms),
        streamed=row.streamed,
        cached=row.cache_hit,
        funding=_word(usage_pb2.Funding.DESCRIPTOR, "FUNDING_", row.funding),
        input_tokens=_number_or_null(row.input_tokens),
        output_tokens=_number_or_null(row.output_tokens),
        cost=_number_or_null(None if row.cost_pico is None else nearest_double(row.cost_pico)),
        attempt_count=len(row.attempts),
        metadata=row.metadata,
    )


def request_to_proto(request: WholeRequest) -> pb.GetRequestResponse:
    row = request.row
    response = pb.GetRequestResponse(
        request=summary_to_proto(row),
        attempts=[_attempt_to_proto(order, attempt) for order, attempt in enumerate(row.attempts, start=1)],
        cost_lines=map(_line_to_proto, request.lines),
        usage=_usage_to_proto(row),
        usage_source=_word(usage_pb2.UsageSource.DESCRIPTOR, "USAGE_SOURCE_", row.usage_source),
        discount=_decimal(row.discount),
        price_version="" if row.price_version_id is None else str(row.price_version_id),
        cost_exact="" if row.cost_pico is None else usd_from_pico(int(row.cost_pico)),
        charged_exact=usd_from_pico(int(row.charged_pico)),
        saved_exact=usd_from_pico(int(row.saved_pico)),
        unpriced=row.unpriced,
        flags=[_word(usage_pb2.RecordFlag.DESCRIPTOR, "RECORD_FLAG_", flag) for flag in row.flags],
    )
    if request.payload is not None:
        _add_payload(response, request.payload)
    return response


def _add_payload(response: pb.GetRequestResponse, row: Row[Any]) -> None:
    response.request_body, response.request_body_is_base64 = body_from_compressed(bytes(row.request_body))
    response.response_body, response.response_body_is_base64 = body_from_compressed(bytes(row.response_body))
    response.request_content_type = row.request_content_type
    response.response_content_type = row.response_content_type


def _attempt_to_proto(order: int, attempt: dict[str, Any]) -> pb.RequestAttempt:
    return pb.RequestAttempt(
        order=order,
        provider=attempt["provider"],
        model=attempt["upstream_model"],
        status=attempt["status"],
        error=attempt["error_type"],
        latency_ms=attempt["latency_ms"],
        funding=_word(usage_pb2.Funding.DESCRIPTOR, "FUNDING_", attempt["funding"]),
    )


def _line_to_proto(row: Row[Any]) -> pb.CostLine:
    return pb.CostLine(
        line=row.line,
        quantity=str(row.quantity),
        unit_price=_decimal(row.unit_price),
        discount=_decimal(row.discount),
        cost=usd_from_pico(int(row.cost_pico)),
        list_cost=usd_from_pico(int(row.list_cost_pico)),
        charged=row.charged,
    )


def _usage_to_proto(row: Row[Any]) -> pb.RequestUsage | None:
    if row.input_tokens is None:  # of a usage that is known, every quantity is
        return None
    return pb.RequestUsage(**{name: getattr(row, name) or 0 for name in USAGE})


def _number_or_null(number: float | None) -> Value:
    return Value(null_value=NULL_VALUE) if number is None else Value(number_value=number)


def _decimal(digits: str | None) -> str:
    """Without trailing zeros. Nothing is "0"."""
    digits = digits or "0"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _word(enum: EnumDescriptor, prefix: str, number: int | None) -> str:
    """A value of an enumeration in REST's spelling; "" where nothing is known."""
    return enum.values_by_number[number].name.removeprefix(prefix).lower() if number else ""
