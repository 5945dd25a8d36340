"""Where a list goes on. Opaque to clients, and good only for the filter it was made with. Pure."""

import base64
from uuid import UUID

from services.common.errors import InvalidRequestError
from services.reporting.request_filter import RequestFilter

_ID_BYTES, _DIGEST_BYTES = 16, 8
_TOKEN_BYTES = _ID_BYTES + _DIGEST_BYTES  # a multiple of three, so base64 needs no padding


def page_token_for(last_id: UUID, calls: RequestFilter) -> str:
    """A token for the page after the call of this id."""
    return base64.urlsafe_b64encode(last_id.bytes + calls.digest[:_DIGEST_BYTES]).decode()


def id_from_page_token(token: str, calls: RequestFilter) -> UUID | None:
    """The last call of the page before; None for "". Raises InvalidRequestError for a token of another filter."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _TOKEN_BYTES or raw[_ID_BYTES:] != calls.digest[:_DIGEST_BYTES]:
        raise InvalidRequestError(
            "page_token", "must be the next_page_token of an answer to the same filters; leave it out to start anew."
        )
    return UUID(bytes=raw[:_ID_BYTES])
