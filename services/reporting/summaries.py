"""Sums over calls: from rows of figures to what a period and its breakdowns say. Pure.

Everything is a whole number here: calls, tokens, pico-USD. Only `convert` makes doubles of them, at the very edge.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from services.reporting.periods import Timeline

# The numbers of `tollgate.ledger.v1.Funding`.
OWN_KEY = 2


class Dimension(Enum):
    """What a breakdown is by, as `groupBy` names it."""

    MODEL = "model"
    API_KEY = "apiKey"
    PROVIDER = "provider"
    WORKFLOW = "workflow"


class Figures(NamedTuple):
    """What some calls add up to. Its names are the columns of `reporting.usage_hour`."""

    request_count: int = 0
    success_count: int = 0
    client_error_count: int = 0
    cache_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    input_cost_pico: int = 0
    cached_input_cost_pico: int = 0
    cache_write_cost_pico: int = 0
    image_input_cost_pico: int = 0
    audio_input_cost_pico: int = 0
    output_cost_pico: int = 0
    reasoning_output_cost_pico: int = 0
    image_output_cost_pico: int = 0
    audio_output_cost_pico: int = 0
    request_cost_pico: int = 0
    web_search_cost_pico: int = 0
    rejection_cost_pico: int = 0
    data_storage_cost_pico: int = 0
    cost_pico: int = 0
    saved_pico: int = 0
    charged_pico: int = 0

    @property
    def error_count(self) -> int:
        return self.request_count - self.success_count

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def whole_input_cost_pico(self) -> int:
        """Plain, image and audio input; not the cache's."""
        return self.input_cost_pico + self.image_input_cost_pico + self.audio_input_cost_pico

    @property
    def whole_output_cost_pico(self) -> int:
        return (
            self.output_cost_pico
            + self.reasoning_output_cost_pico
            + self.image_output_cost_pico
            + self.audio_output_cost_pico
        )

    @property
    def whole_request_cost_pico(self) -> int:
        """Flat fees per call, those for rejections included."""
        return self.request_cost_pico + self.rejection_cost_pico


FIGURES = Figures._fields


def add_up(parts: Sequence[Figures]) -> Figures:
    """Column by column, which is ten times as quick as row by row. Most breakdowns have one row to add up."""
    return parts[0] if len(parts) == 1 else Figures(*map(sum, zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresRow:
    """Figures of the calls that share a period (by its number, from 0), a funding and everything else named here."""

    period: int
    funding: int
    # What else was asked for: a model, key, provider or workflow, and the provider of the first and third. "" if not.
    group: str = ""
    provider: str = ""
    figures: Figures


class Breakdown(NamedTuple):
    """What the calls of one model, key, provider or workflow within a period add up to."""

    # The number of the period, from 0.
    period: int
    id: str
    # Empty for keys and workflows, which have several.
    provider: str
    request_count: int
    success_count: int
    cache_count: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost_pico: int
    # Those of the calls that own keys paid for; credits paid for the others.
    own_key_request_count: int
    own_key_cost_pico: int


# What a breakdown sums, whoever paid and by own keys only.
BREAKDOWN_FIGURES = Breakdown._fields[3:-2]
OWN_KEY_FIGURES = ("request_count", "cost_pico")


class ActivitySums(NamedTuple):
    """The figures of the same calls, once for each thing that they are shown by."""

    totals: Sequence[FiguresRow]
    by_model: Sequence[Breakdown]
    # Empty where nothing else was asked for.
    by_group: Sequence[Breakdown]


@dataclass(frozen=True, slots=True)
class Split:
    """Figures, in all and by who paid the provider. The two parts are the whole."""

    total: Figures
    credits: Figures
    own_keys: Figures


def split(rows: Sequence[FiguresRow]) -> Split:
    """What the rows add up to."""
    paid_from_credits = [row.figures for row in rows if row.funding != OWN_KEY]
    paid_with_own_keys = [row.figures for row in rows if row.funding == OWN_KEY]
    return Split(
        total=add_up(paid_from_credits + paid_with_own_keys),
        credits=add_up(paid_from_credits),
        own_keys=add_up(paid_with_own_keys),
    )


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """What happened in a period. `by_group` is by what was asked for, empty when that is the model."""

    label: str
    figures: Split
    by_model: list[Breakdown]
    by_group: list[Breakdown]


def percentage(part: int, whole: int) -> float:
    """Of 100. 0 when there is nothing to be a part of."""
    return 100 * part / whole if whole else 0.0


def summarize(timeline: Timeline, sums: ActivitySums) -> list[PeriodSummary]:
    """What each period of the timeline adds up to, in its order; idle periods only where it shows them.

    Breakdowns begin with what costs most, then what is busiest, then by name.
    """
    totals: defaultdict[int, list[FiguresRow]] = defaultdict(list)
    for row in sums.totals:
        totals[row.period].append(row)
    by_model, by_group = _ranked_by_period(sums.by_model), _ranked_by_period(sums.by_group)
    return [
        PeriodSummary(period.label, split(totals[number]), by_model[number], by_group[number])
        for number, period in enumerate(timeline.periods)
        if timeline.shows_idle or totals[number]
    ]


def _ranked_by_period(rows: Iterable[Breakdown]) -> "defaultdict[int, list[Breakdown]]":
    by_period: defaultdict[int, list[Breakdown]] = defaultdict(list)
    for row in sorted(rows, key=_rank):
        by_period[row.period].append(row)
    return by_period


def _rank(row: Breakdown) -> tuple[int, int, str, str]:
    return -row.cost_pico, -row.request_count, row.id, row.provider


# A group of calls within a period: the number of the period, its id and its provider.
Group = tuple[int, str, str]


def groups_of(rows: Iterable[FiguresRow]) -> list[tuple[Group, Split]]:
    """What each group adds up to, in the order of periods and names."""
    by_group: defaultdict[Group, list[FiguresRow]] = defaultdict(list)
    for row in rows:
        by_group[row.period, row.group, row.provider].append(row)
    return [(group, split(some)) for group, some in sorted(by_group.items())]
