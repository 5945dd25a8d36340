"""Counts of calls by whom they were answered. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class Grouping(Enum):
    """What a breakdown is by, as `group_by` names it. Its value is the column, its name in lower case the word."""

    PROVIDER = "provider"
    MODEL = "model"
    PROJECT = "project_id"


class Counts(NamedTuple):
    """Calls, and those of them that were answered with a 2xx."""

    requests: int = 0
    successful: int = 0

    @property
    def failed(self) -> int:
        return self.requests - self.successful

    @property
    def success_rate(self) -> float:
        return self.successful / self.requests if self.requests else 0.0

    @property
    def failure_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    def plus(self, other: "Counts") -> "Counts":
        return Counts(self.requests + other.requests, self.successful + other.successful)


@dataclass(slots=True)
class Analytics:
    """Counts, once by each thing. Every total is the sum of each of them."""

    by_group: dict[Grouping, dict[str, Counts]] = field(
        default_factory=lambda: {grouping: defaultdict(Counts) for grouping in Grouping}
    )
    # By the number of the day, and for the breakdown by day and key.
    by_day: dict[int, Counts] = field(default_factory=lambda: defaultdict(Counts))
    by_day_and_key: dict[tuple[int, str], Counts] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        return add_up(self.by_day.values())


def add_up(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for one in counts:
        total = total.plus(one)
    return total
