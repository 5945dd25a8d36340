"""Activity as a table. Money is exact: decimal numbers, as text. Pure."""

from collections.abc import Callable, Iterable

from services.common.money import usd_from_pico
from services.reporting.files import Cell
from services.reporting.periods import Timeline
from services.reporting.summaries import FiguresRow, Split, groups_of, percentage, split

Row = list[Cell]


def _total(name: str) -> Callable[[Split], Cell]:
    return lambda figures: getattr(figures.total, name)


def _usd(part: str, name: str) -> Callable[[Split], Cell]:
    return lambda figures: usd_from_pico(getattr(getattr(figures, part), name))


# The fields of `ActivityPeriod`, in its order.
_FIGURES: dict[str, Callable[[Split], Cell]] = {
    "requestCount": _total("request_count"),
    "inputTokens": _total("input_tokens"),
    "outputTokens": _total("output_tokens"),
    "totalTokens": _total("total_tokens"),
    "cachedTokens": _total("cached_input_tokens"),
    "cost": _usd("total", "cost_pico"),
    "inputCost": _usd("total", "whole_input_cost_pico"),
    "outputCost": _usd("total", "whole_output_cost_pico"),
    "cachedInputCost": _usd("total", "cached_input_cost_pico"),
    "cacheWriteInputCost": _usd("total", "cache_write_cost_pico"),
    "requestCost": _usd("total", "whole_request_cost_pico"),
    "webSearchCost": _usd("total", "web_search_cost_pico"),
    "dataStorageCost": _usd("total", "data_storage_cost_pico"),
    "imageInputCost": _usd("total", "image_input_cost_pico"),
    "imageOutputCost": _usd("total", "image_output_cost_pico"),
    "audioInputCost": _usd("total", "audio_input_cost_pico"),
    "audioOutputCost": _usd("total", "audio_output_cost_pico"),
    "errorCount": _total("error_count"),
    "errorRate": lambda figures: percentage(figures.total.error_count, figures.total.request_count),
    "clientErrorCount": _total("client_error_count"),
    "cacheCount": _total("cache_count"),
    "cacheRate": lambda figures: percentage(figures.total.cache_count, figures.total.request_count),
    "discountSavings": _usd("total", "saved_pico"),
    "creditsRequestCount": lambda figures: figures.credits.request_count,
    "apiKeysRequestCount": lambda figures: figures.own_keys.request_count,
    "creditsCost": _usd("credits", "cost_pico"),
    "apiKeysCost": _usd("own_keys", "cost_pico"),
    "creditsDataStorageCost": _usd("credits", "data_storage_cost_pico"),
    "apiKeysDataStorageCost": _usd("own_keys", "data_storage_cost_pico"),
    "charged": _usd("total", "charged_pico"),
}
COLUMNS = ("date", *_FIGURES)
GROUP_COLUMNS = ("date", "id", "provider", *_FIGURES)


def rows_of_periods(timeline: Timeline, rows: Iterable[FiguresRow]) -> list[Row]:
    """A row per period, in order; idle ones only where the timeline shows them."""
    by_period: dict[int, list[FiguresRow]] = {}
    for row in rows:
        by_period.setdefault(row.period, []).append(row)
    return [
        [period.label, *_cells(split(by_period.get(number, [])))]
        for number, period in enumerate(timeline.periods)
        if timeline.shows_idle or number in by_period
    ]


def rows_of_groups(timeline: Timeline, rows: Iterable[FiguresRow]) -> list[Row]:
    """A row per period and group, in order."""
    return [
        [timeline.periods[period].label, name, provider, *_cells(figures)]
        for (period, name, provider), figures in groups_of(rows)
    ]


def _cells(figures: Split) -> Row:
    return [cell(figures) for cell in _FIGURES.values()]
