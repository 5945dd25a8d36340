"""What overviews, percentiles and failures say. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.reporting.percentiles import Counts, add_up, percentile


class Traffic(NamedTuple):
    """Sums of an overview."""

    requests: int = 0
    successful: int = 0
    tokens: int = 0
    cost_pico: int = 0

    def plus(self, other: "Traffic") -> "Traffic":
        return Traffic(*map(sum, zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Durations:
    """How long calls took, by bucket: to the last byte, and to the first."""

    latency: Counts = field(default_factory=dict)
    first_token: Counts = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return sum(self.latency.values())

    def latency_ms(self, percent: int) -> float | None:
        return percentile(self.latency, percent)

    def first_token_ms(self, percent: int) -> float | None:
        return percentile(self.first_token, percent)


def together(parts: Sequence[Durations]) -> Durations:
    return Durations(add_up(one.latency for one in parts), add_up(one.first_token for one in parts))


class Failure(NamedTuple):
    """Calls of a day, by its number, that failed alike."""

    period: int
    status: int
    error_type: str
    provider: str
    model: str
    call_count: int

    @property
    def is_clients(self) -> bool:
        """The caller's to mend; anything else is a provider's doing, or ours."""
        return 400 <= self.status < 500


class FailureKind(NamedTuple):
    """How calls failed."""

    is_clients: bool
    status: int
    error_type: str
    provider: str
    model: str


def by_kind(failures: Iterable[Failure]) -> list[tuple[FailureKind, int]]:
    """How often calls failed how, most frequent first."""
    counts: defaultdict[FailureKind, int] = defaultdict(int)
    for one in failures:
        counts[FailureKind(one.is_clients, one.status, one.error_type, one.provider, one.model)] += one.call_count
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def by_day(failures: Iterable[Failure]) -> list[tuple[int, int, int]]:
    """Of each day with any, in order: its number, the client's failures and the others."""
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for one in failures:
        counts[one.period][0 if one.is_clients else 1] += one.call_count
    return [(day, clients, others) for day, (clients, others) in sorted(counts.items())]
