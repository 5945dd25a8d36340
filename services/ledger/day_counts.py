"""How long the calls of a day took, and how they failed. Pure: the same records in any order give the same counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.common.latency_buckets import bucket_of
from services.ledger.pricing import Outcome
from services.ledger.records import PricedRecord

_US_PER_DAY = 86_400_000_000
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

    latency: Counter[int] = field(default_factory=Counter)
    # Calls without a first token are not in here.
    time_to_first_token: Counter[int] = field(default_factory=Counter)


def durations_by_day(records: Iterable[PricedRecord]) -> dict[CallsKey, Durations]:
    days: dict[CallsKey, Durations] = {}
    for one in records:
        record = one.record
        if record.outcome in _WITHOUT_LATENCY:
            continue
        key = CallsKey(
            record.organization_id,
            record.start_us // _US_PER_DAY,
            record.project_id,
            record.provider,
            record.model,
            record.workflow,
        )
        durations = days.get(key)
        if durations is None:
            durations = days[key] = Durations()
        durations.latency[bucket_of(record.latency_ms)] += 1
        if record.time_to_first_token_ms is not None:
            durations.time_to_first_token[bucket_of(record.time_to_first_token_ms)] += 1
    return days


def failures_by_day(records: Iterable[PricedRecord]) -> Counter[FailureKey]:
    """The calls that were not answered with a 2xx, refusals included."""
    return Counter(
        FailureKey(
            record.organization_id,
            record.start_us // _US_PER_DAY,
            record.project_id,
            record.provider,
            record.model,
            record.workflow,
            record.status,
            record.error_type,
        )
        for record in (one.record for one in records)
        if not 200 <= record.status < 300
    )
