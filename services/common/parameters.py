"""Query parameters are text; here they become values, or an error that names the parameter. Pure. "" is left out."""

import re
from datetime import UTC, datetime
from uuid import UUID

from services.common.errors import InvalidRequestError

_WHOLE_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
# How much of what was sent is told back.
_SHOWN_MAX = 64


def whole_number(name: str, value: str, *, default: int, least: int, most: int) -> int:
    """A whole number within bounds, in plain digits."""
    if not value:
        return default
    if not _WHOLE_NUMBER.fullmatch(value) or not least <= int(value) <= most:
        raise InvalidRequestError(name, f"must be a whole number from {least} to {most}, got {_shown(value)}")
    return int(value)


def optional_uuid(name: str, value: str) -> UUID | None:
    """A UUID with its dashes; upper case is as good."""
    if not value:
        return None
    if not _UUID.fullmatch(value):
        raise InvalidRequestError(name, f"must be a UUID, got {_shown(value)}")
    return UUID(value)


def optional_time(name: str, value: str) -> datetime | None:
    """A moment as RFC 3339 writes it, in UTC, to the microsecond."""
    if not value:
        return None
    try:
        if not _TIME.fullmatch(value):
            raise ValueError
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequestError(name, f"must be a time such as 2026-03-01T00:00:00Z, got {_shown(value)}") from None


def _shown(value: str) -> str:
    return f"'{value}'" if len(value) <= _SHOWN_MAX else f"'{value[:_SHOWN_MAX]}…'"
