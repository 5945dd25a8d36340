"""What a client is told over HTTP when a call fails: one table from meaning to status, one body for all."""

from collections.abc import Mapping

import orjson

from services.common.errors import DomainError
from services.router.limits.limits import RateLimitedError

STATUS_BY_REASON: Mapping[str, int] = {
    "INVALID_REQUEST": 400,
    "OWN_KEY_MISSING": 400,
    "INVALID_API_KEY": 401,
    "INSUFFICIENT_CREDITS": 402,
    "PERMISSION_DENIED": 403,
    "READ_ONLY_KEY": 403,
    "NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "TOO_LARGE": 413,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "RATE_LIMITED": 429,
    "PROVIDER_FAILED": 502,
    "SERVICE_UNAVAILABLE": 503,
    "INTERNAL": 503,
}
_TYPE_BY_STATUS: Mapping[int, str] = {
    401: "authentication_error",
    402: "insufficient_credits",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "provider_error",
    503: "service_unavailable",
}
BUG_MESSAGE = "Something went wrong on our side."


def status_of(error: DomainError) -> int:
    """The HTTP status an error stands for."""
    return STATUS_BY_REASON[error.reason]


def error_body(status: int, code: str, message: str, beside: Mapping[str, str] | None = None) -> bytes:
    """The documented body, with more members beside `error` where a format has some.

    `message` is there twice, for clients of the activity family.
    """
    # Any other 4xx is the request's fault too.
    kind = _TYPE_BY_STATUS.get(status, "invalid_request_error")
    error = {"message": message, "type": kind, "code": code}
    return orjson.dumps({**(beside or {}), "error": error, "message": message})


def error_headers(request_id: str, error: DomainError | None = None) -> list[tuple[str, str]]:
    """The headers of an answer that tells of a failure."""
    headers = [("content-type", "application/json"), ("x-tollgate-request-id", request_id)]
    if error is not None and error.retry_after_seconds is not None:
        headers.append(("retry-after", str(error.retry_after_seconds)))
    if isinstance(error, RateLimitedError):
        headers += error.headers
    return headers
