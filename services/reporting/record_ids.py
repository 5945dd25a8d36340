"""Finding usage records by the time their ids begin with, which is what the detail is indexed by. Pure."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

# Routers take id and start at once. The ledger takes a record if both times are at most 35 days past and a day
# ahead, so whoever the producer was, they are never further apart than this.
APART_MAX = timedelta(days=36)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME_SHIFT = 80


def lowest_id(start_time: datetime) -> UUID:
    """No call that started then or later has a lower id."""
    return _first_id_of(start_time - APART_MAX)


def highest_id(start_time: datetime) -> UUID:
    """No call that started then or earlier has a higher id."""
    return _first_id_of(start_time + APART_MAX)


def _first_id_of(moment: datetime) -> UUID:
    milliseconds = max(0, (moment - _EPOCH) // _MILLISECOND)
    return UUID(int=milliseconds << _TIME_SHIFT)
