"""Percentiles of durations that are counted by bucket. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from services.common.latency_buckets import milliseconds_of

# How many there are of each bucket.
Counts = Mapping[int, int]


def percentile(counts: Counts, percent: int) -> float | None:
    """What so many per cent stayed within, within 1.5 % of the exact one. None of nothing."""
    total = sum(counts.values())
    if not total:
        return None
    rank = -(-total * percent // 100)
    reached = 0
    for bucket in sorted(counts):
        reached += counts[bucket]
        if reached >= rank:
            return round(milliseconds_of(bucket), 3)
    raise AssertionError("the last bucket reaches every rank")


def add_up(parts: Iterable[Counts]) -> Counts:
    """The counts of several groups together."""
    total: defaultdict[int, int] = defaultdict(int)
    for counts in parts:
        for bucket, count in counts.items():
            total[bucket] += count
    return total
