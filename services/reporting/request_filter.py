"""Which calls a list shows. Pure: from parameters to a value that cannot be wrong."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time
from typing import Protocol

from services.common.errors import InvalidRequestError
from services.common.money import pico_from_usd
from services.common.parameters import optional_time
from services.reporting.parameters import storable_text, whole_number
from services.reporting.periods import DAY, date_named
from services.reporting.view import View

# The numbers of `tollgate.ledger.v1.Funding`, as REST spells it.
FUNDINGS = {"credits": 1, "own_key": 2}
METADATA_MAX = 16
# More than eleven days.
LATENCY_MS_MAX = 999_999_999
COST_PICO_MAX = 2**63 - 1

_STATUS = re.compile(r"[1-5]\d\d", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """What calls have in common that are listed. None does not restrict."""

    # With provider, model, workflow and funding.
    view: View
    # An exact status, or whether it was a 2xx; never both.
    status: int | None = None
    succeeded: bool | None = None
    cached: bool | None = None
    # From when on, and until when (exclusive), calls started.
    since: datetime | None = None
    until: datetime | None = None
    latency_ms_min: int | None = None
    cost_pico_min: int | None = None
    # What the client attached, all of it.
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> bytes:
        """Differs between filters that differ; what a page token is bound to."""
        return hashlib.sha256(json.dumps(asdict(self), default=str).encode()).digest()


class RequestParameters(Protocol):
    """The parameters of a request that say which calls it is about. "" is one left out."""

    @property
    def status(self) -> str: ...
    @property
    def cached(self) -> str: ...
    @property
    def funding(self) -> str: ...
    @property
    def from_time(self) -> str: ...
    @property
    def to_time(self) -> str: ...
    @property
    def min_latency_ms(self) -> str: ...
    @property
    def min_cost(self) -> str: ...


def request_filter_from(view: View, parameters: RequestParameters, metadata: Mapping[str, str]) -> RequestFilter:
    """Raises InvalidRequestError, naming the parameter."""
    exact_status, succeeded = _status(parameters.status)
    since, until = _moment("from", parameters.from_time), _moment("to", parameters.to_time, is_end=True)
    if since is not None and until is not None and until <= since:
        raise InvalidRequestError("to", f"must be after from ({parameters.from_time}), got '{parameters.to_time}'.")
    return RequestFilter(
        view=replace(view, funding=_funding(parameters.funding)),
        status=exact_status,
        succeeded=succeeded,
        cached=_flag("cached", parameters.cached),
        since=since,
        until=until,
        latency_ms_min=_latency(parameters.min_latency_ms),
        cost_pico_min=_cost(parameters.min_cost),
        metadata=_metadata(metadata),
    )


def metadata_in(query: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a query asks of metadata: `metadata.<key>=<value>`. Of several values of a key the last one counts."""
    prefix = "metadata."
    return {name.removeprefix(prefix): values[-1] for name, values in query.items() if name.startswith(prefix)}


def _metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if len(metadata) > METADATA_MAX:
        raise InvalidRequestError("metadata", f"may have at most {METADATA_MAX} keys.")
    for key, value in metadata.items():
        storable_text(f"metadata.{key}", key + value)
    return tuple(sorted(metadata.items()))


def _moment(name: str, value: str, *, is_end: bool = False) -> datetime | None:
    if not value:
        return None
    if len(value) == len("YYYY-MM-DD"):
        day = datetime.combine(date_named(name, value), time(), UTC)
        return day + DAY if is_end else day
    return optional_time(name, value)


def _flag(name: str, value: str) -> bool | None:
    if value not in ("", "true", "false"):
        raise InvalidRequestError(name, f"must be 'true' or 'false', got '{value}'.")
    return value == "true" if value else None


def _funding(value: str) -> int | None:
    if value and value not in FUNDINGS:
        raise InvalidRequestError("funding", f"must be 'credits' or 'own_key', got '{value}'.")
    return FUNDINGS.get(value)


def _latency(value: str) -> int | None:
    return whole_number("min_latency_ms", value, default=0, least=0, most=LATENCY_MS_MAX) if value else None


def _cost(value: str) -> int | None:
    if not value:
        return None
    try:
        return min(pico_from_usd(value), COST_PICO_MAX)
    except ValueError:
        raise InvalidRequestError("min_cost", f"must be a decimal number of USD such as 0.05, got '{value}'.") from None


def _status(value: str) -> tuple[int | None, bool | None]:
    if value in ("ok", "error"):
        return None, value == "ok"
    if not value:
        return None, None
    if not _STATUS.fullmatch(value):
        raise InvalidRequestError("status", f"must be 'ok', 'error' or an HTTP status such as 429, got '{value}'.")
    return int(value), None
