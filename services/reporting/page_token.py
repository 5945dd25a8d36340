"""Where a list goes on. Opaque to clients, and good only for the filter it was made with."""

import base64
from datetime import date
from uuid import UUID

from services.common.errors import InvalidRequestError
from services.reporting.request_filter import RequestFilter
from services.reporting.request_query import Position

_DAY_BYTES, _UUID_BYTES, _DIGEST_BYTES = 4, 16, 10
_TOKEN_BYTES = _DAY_BYTES + _UUID_BYTES + _DIGEST_BYTES  # 30: base64 needs no padding


def page_token_for(position: Position, calls: RequestFilter) -> str:
    """A token for the page after the call at `position`."""
    day = position.request_day.toordinal().to_bytes(_DAY_BYTES)
    return base64.urlsafe_b64encode(day + position.request_id.bytes + calls.digest[:_DIGEST_BYTES]).decode()


def position_from_page_token(token: str, calls: RequestFilter) -> Position | None:
    """Where to go on; None for "". Raises InvalidRequestError for a token of another filter, or one not made here."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        if len(raw) != _TOKEN_BYTES or raw[-_DIGEST_BYTES:] != calls.digest[:_DIGEST_BYTES]:
            raise ValueError
        day = date.fromordinal(int.from_bytes(raw[:_DAY_BYTES]))
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            "page_token", "must be the next_page_token of an answer to the same filters; leave it out to start anew."
        ) from None
    return Position(day, UUID(bytes=raw[_DAY_BYTES : _DAY_BYTES + _UUID_BYTES]))
