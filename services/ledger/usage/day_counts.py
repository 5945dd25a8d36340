"""How long the calls of a day took, and how they failed. Pure: the same records in any order give the same counts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from services.common.latency_buckets import bucket_of
from services.ledger.pricing import Outcome
from services.ledger.usage.rollups import Hour, HourKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Refusals are quick and say nothing about a provider; of a call cut off by a crash nobody knows how long it took.
_WITHOUT_LATENCY = frozenset({Outcome.REFUSED, Outcome.UNKNOWN})


class CallsKey(NamedTuple):
    """What durations are counted by. Sorts as the database sorts it."""

    organization_id: str
    # Days since 1970, in UTC, of the start of the call.
    day: int
    project_id: str
    provider: str
    model: str
    workflow: str


class FailureKey(NamedTuple):
    """What failures are counted by."""

    organization_id: str
    day: int
    project_id: str
    provider: str
    model: str
    workflow: str
    status: int
    error_type: str


@dataclass(slots=True)
class Durations:
    """How many calls took how long, by bucket."""

    latency: dict[int, int] = field(default_factory=dict)
    # Calls without a first token are not in here.
    time_to_first_token: dict[int, int] = field(default_factory=dict)


def durations_by_day(hours: Mapping[HourKey, Hour]) -> dict[CallsKey, Durations]:
    days: dict[CallsKey, Durations] = {}
    for key, hour in hours.items():
        calls = _calls_key(key)
        durations = days.get(calls) or Durations()
        latency, first_token = durations.latency, durations.time_to_first_token
        for one in hour.records:
            record = one.record
            if record.outcome in _WITHOUT_LATENCY:
                continue
            bucket = bucket_of(record.latency_ms)
            latency[bucket] = latency.get(bucket, 0) + 1
            if record.time_to_first_token_ms is not None:
                bucket = bucket_of(record.time_to_first_token_ms)
                first_token[bucket] = first_token.get(bucket, 0) + 1
        if latency:
            days[calls] = durations
    return days


def failures_by_day(hours: Mapping[HourKey, Hour]) -> Counter[FailureKey]:
    """The calls that were not answered with a 2xx, refusals included."""
    return Counter(
        FailureKey(*_calls_key(key), record.status, record.error_type)
        for key, hour in hours.items()
        for record in (one.record for one in hour.records)
        if not 200 <= record.status < 300
    )


def _calls_key(key: HourKey) -> CallsKey:
    return CallsKey(
        key.organization_id, (key.hour - _EPOCH).days, key.project_id, key.provider, key.model, key.workflow
    )
