"""The one table from what went wrong to what gRPC calls it."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from services.common.errors import DomainError, ErrorKind

DOMAIN = "tollgate"

CODE_BY_KIND = {
    ErrorKind.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: Code.PERMISSION_DENIED,
    ErrorKind.INVALID: Code.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: Code.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: Code.ALREADY_EXISTS,
    ErrorKind.NOT_READY: Code.FAILED_PRECONDITION,
    ErrorKind.EXHAUSTED: Code.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: Code.UNAVAILABLE,
}


def status_of(error: DomainError) -> Status:
    """The status a client sees: code, message, and the reason as `ErrorInfo`, with `RetryInfo` where waiting helps."""
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status = Status(code=CODE_BY_KIND[error.kind], message=error.message, details=[_packed(info)])
    if error.retry_after_seconds is not None:
        delay = Duration(seconds=error.retry_after_seconds)
        status.details.append(_packed(RetryInfo(retry_delay=delay)))
    return status


def status_of_bug() -> Status:
    """What a client sees of a bug: nothing but that it is ours."""
    info = ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    return Status(code=Code.INTERNAL, message="Something went wrong on our side.", details=[_packed(info)])


def _packed(message: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
