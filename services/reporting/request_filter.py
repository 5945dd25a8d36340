"""Which calls a list shows. Pure: from parameters to a value that cannot be wrong."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from services.common.errors import InvalidRequestError
from services.reporting.parameters import storable_text
from services.reporting.view import View

_STATUS = re.compile(r"[1-5]\d\d", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """What calls have in common that are listed. None does not restrict."""

    view: View
    provider: str | None = None
    model: str | None = None
    workflow: str | None = None
    # An exact status, or whether it was a 2xx; never both.
    status: int | None = None
    succeeded: bool | None = None

    @property
    def digest(self) -> bytes:
        """Differs between filters that differ; what a page token is bound to."""
        return hashlib.sha256(json.dumps(asdict(self), default=str).encode()).digest()


def request_filter_from(view: View, *, provider: str, model: str, workflow: str, status: str) -> RequestFilter:
    """Raises InvalidRequestError, naming the parameter. "" is one left out."""
    exact_status, succeeded = _status(status)
    return RequestFilter(
        view=view,
        provider=storable_text("provider", provider) or None,
        model=storable_text("model", model) or None,
        workflow=storable_text("workflow", workflow) or None,
        status=exact_status,
        succeeded=succeeded,
    )


def _status(value: str) -> tuple[int | None, bool | None]:
    if value in ("ok", "error"):
        return None, value == "ok"
    if not value:
        return None, None
    if not _STATUS.fullmatch(value):
        raise InvalidRequestError("status", f"must be 'ok', 'error' or an HTTP status such as 429, got '{value}'.")
    return int(value), None
