"""What retention did, as the wire has it."""

from services.common.money import usd_from_pico
from services.ledger.convert_values import time_to_proto
from services.ledger.retention.retention import Kept
from services.ledger.storage.retention.expiry_reading import Expiry, RetentionProblem
from tollgate.ledger.v1 import retention_service_pb2 as wire


def expiry_to_proto(expiry: Expiry) -> wire.Expiry:
    return wire.Expiry(
        expiry_id=str(expiry.expiry_id),
        organization_id=str(expiry.organization_id),
        day=expiry.day.isoformat(),
        kind=_kind_to_proto(expiry.kind),
        expire_time=time_to_proto(expiry.expire_time),
        row_count=str(expiry.row_count),
        record_count="" if expiry.record_count is None else str(expiry.record_count),
        cost=_usd(expiry.cost_pico),
        charged=_usd(expiry.charged_pico),
    )


def problem_to_proto(problem: RetentionProblem) -> wire.RetentionProblem:
    return wire.RetentionProblem(
        organization_id=str(problem.organization_id),
        day=problem.day.isoformat(),
        kind=_kind_to_proto(problem.kind),
        sums=[
            wire.SumMismatch(name=name, expected=problem.expected[name], found=problem.found[name])
            for name in problem.expected
        ],
        first_time=time_to_proto(problem.first_time),
        last_time=time_to_proto(problem.last_time),
    )


def _kind_to_proto(kind: Kept) -> "wire.KeptKind.ValueType":
    return wire.KeptKind.Value(f"KEPT_KIND_{kind.name}")


def _usd(pico: int | None) -> str:
    return "" if pico is None else usd_from_pico(int(pico))
