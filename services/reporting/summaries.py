"""Sums over calls: from rows of figures to what a period and its breakdowns say. Pure.

Everything is a whole number here: calls, tokens, pico-USD. Only `convert` makes doubles of them, at the very edge.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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
# What a row of a breakdown shows.
BREAKDOWN_FIGURES = (
    "request_count",
    "success_count",
    "cache_count",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_pico",
)


def add_up(parts: Sequence[Figures]) -> Figures:
    """Column by column, which is ten times as quick as row by row. Most breakdowns have one row to add up."""
    return parts[0] if len(parts) == 1 else Figures(*map(sum, zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresRow:
    """Figures of the calls that share a period (by its number, from 0), a funding and everything else named here."""

    period: int
    funding: int
    model: str = ""
    provider: str = ""
    # Whatever else was asked for: a key or a workflow. "" when nothing was.
    group: str = ""
    figures: Figures


@dataclass(frozen=True, slots=True)
class ActivitySums:
    """The figures of the same calls, once for each thing that they are shown by. Breakdowns have fewer figures."""

    totals: Sequence[FiguresRow]
    by_model: Sequence[FiguresRow]
    # Empty where models and providers say it all.
    by_group: Sequence[FiguresRow]


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
class BreakdownRow:
    """One model, key, provider or workflow within a period."""

    id: str
    provider: str
    figures: Split


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """What happened in a period. `by_group` is by what was asked for, empty when that is the model."""

    label: str
    figures: Split
    by_model: list[BreakdownRow]
    by_group: list[BreakdownRow]


def percentage(part: int, whole: int) -> float:
    """Of 100. 0 when there is nothing to be a part of."""
    return 100 * part / whole if whole else 0.0


def summarize(timeline: Timeline, sums: ActivitySums, dimension: Dimension) -> list[PeriodSummary]:
    """What each period of the timeline adds up to, in its order; idle periods only where it shows them."""
    totals, by_model = _by_period(sums.totals), _by_period(sums.by_model)
    by_group = by_model if dimension is Dimension.PROVIDER else _by_period(sums.by_group)
    return [
        PeriodSummary(
            label=period.label,
            figures=split(totals[number]),
            by_model=_breakdown(by_model[number], _by_model),
            by_group=[] if dimension is Dimension.MODEL else _breakdown(by_group[number], _KEYS[dimension]),
        )
        for number, period in enumerate(timeline.periods)
        if timeline.shows_idle or totals[number]
    ]


def _by_period(rows: Iterable[FiguresRow]) -> "defaultdict[int, list[FiguresRow]]":
    by_period: defaultdict[int, list[FiguresRow]] = defaultdict(list)
    for row in rows:
        by_period[row.period].append(row)
    return by_period


def groups_of(timeline: Timeline, rows: Iterable[FiguresRow], dimension: Dimension) -> list[tuple[str, BreakdownRow]]:
    """The groups of each period that has any, with the label of the period, in its order."""
    by_period = _by_period(rows)
    return [
        (period.label, group)
        for number, period in enumerate(timeline.periods)
        for group in _breakdown(by_period[number], _KEYS[dimension])
    ]


# What a row of a breakdown is about: its id and its provider.
_Key = tuple[str, str]


def _by_model(row: FiguresRow) -> _Key:
    return row.model, row.provider


def _by_provider(row: FiguresRow) -> _Key:
    return row.provider, row.provider


def _by_group(row: FiguresRow) -> _Key:
    return row.group, ""


_KEYS: dict[Dimension, Callable[[FiguresRow], _Key]] = {
    Dimension.MODEL: _by_model,
    Dimension.API_KEY: _by_group,
    Dimension.PROVIDER: _by_provider,
    Dimension.WORKFLOW: _by_group,
}


def _breakdown(rows: list[FiguresRow], key_of: Callable[[FiguresRow], _Key]) -> list[BreakdownRow]:
    """Most expensive first, then busiest, then by name: the order never depends on how rows were stored."""
    by_key: defaultdict[_Key, list[FiguresRow]] = defaultdict(list)
    for row in rows:
        by_key[key_of(row)].append(row)
    breakdown = [BreakdownRow(name, provider, split(some)) for (name, provider), some in by_key.items()]
    return sorted(breakdown, key=_rank)


def _rank(row: BreakdownRow) -> tuple[int, int, str, str]:
    total = row.figures.total
    return -total.cost_pico, -total.request_count, row.id, row.provider
