"""Time-ordered ids (RFC 9562, version 7): the first 48 bits are milliseconds since 1970."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 7

__all__ = ["first_uuid7", "milliseconds_of", "new_uuid7", "new_uuid7_text", "parse_uuid7", "time_of"]

new_uuid7 = uuid7


def new_uuid7_text() -> str:
    """Without the object of the standard library, which takes five times as long."""
    return str(uuid_utils.uuid7())


def milliseconds_of(text: str) -> int:
    """When the id was made, since 1970. It must be one in its canonical form."""
    return int(text[:8] + text[9:13], 16)


def parse_uuid7(text: str) -> UUID:
    """Raises ValueError unless the text is a version 7 UUID in its canonical form."""
    parsed = UUID(text)
    if parsed.version != _VERSION or str(parsed) != text:
        raise ValueError(f"must be a UUID of version 7, got {text!r}")
    return parsed


def time_of(uuid: UUID) -> datetime:
    """When it was made, to the millisecond, in UTC."""
    return _EPOCH + timedelta(milliseconds=uuid.int >> 80)


def first_uuid7(moment: datetime) -> UUID:
    """Not after any that was made at the moment or later."""
    return UUID(int=(moment - _EPOCH) // timedelta(milliseconds=1) << 80)
