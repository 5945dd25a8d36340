"""Speaks the wire for the insight family."""

from collections.abc import Iterable, Sequence
from typing import Any

from services.common.errors import InvalidRequestError
from services.common.grpc_calls import Context, current_caller
from services.common.latency_buckets import counts_in
from services.reporting import convert_insights, day_query
from services.reporting.asking import Asker, Question, send, snake_view
from services.reporting.figures_query import Statement
from services.reporting.insights import Durations, Failure, Traffic
from services.reporting.periods import Timeline, last_days
from tollgate.reporting.v1 import insight_service_pb2 as pb
from tollgate.reporting.v1.insight_service_pb2_grpc import InsightServiceServicer

_TRAFFIC = ("request_count", "success_count", "input_tokens", "output_tokens", "cost_pico")
_GROUPINGS = ("provider", "model", "workflow")


class InsightServicer(InsightServiceServicer):
    """Shows how much, how fast and how often not."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def GetOverview(self, request: pb.GetOverviewRequest, context: Context) -> pb.GetOverviewResponse:
        as_of = self._asker.now()
        view, timeline = snake_view(current_caller(), request), last_days(request.days, as_of, shows_idle=True)
        async with self._asker.about(view, as_of) as question:
            timeline = question.kept(timeline)
            by_day, by_model = await _traffic(question, timeline)
            durations = await _durations(question, timeline, ())
        answer = convert_insights.overview_to_proto(timeline, by_day, by_model, durations.get((), Durations()))
        return await send(context, question, answer)

    async def GetLatency(self, request: pb.GetLatencyRequest, context: Context) -> pb.GetLatencyResponse:
        as_of = self._asker.now()
        view, timeline = snake_view(current_caller(), request), last_days(request.days, as_of, shows_idle=False)
        grouping = request.group_by or "model"
        if grouping not in _GROUPINGS:
            raise InvalidRequestError("group_by", f"must be 'provider', 'model' or 'workflow', got '{grouping}'.")
        async with self._asker.about(view, as_of) as question:
            timeline = question.kept(timeline)
            durations = await _durations(question, timeline, ("period", grouping))
        return await send(context, question, convert_insights.latency_to_proto(timeline, grouping, durations))

    async def GetFailures(self, request: pb.GetFailuresRequest, context: Context) -> pb.GetFailuresResponse:
        as_of = self._asker.now()
        view, timeline = snake_view(current_caller(), request), last_days(request.days, as_of, shows_idle=False)
        failures: list[Failure] = []
        async with self._asker.about(view, as_of) as question:
            timeline = question.kept(timeline)
            if timeline.periods:
                rows = await question.snapshot.rows(Statement(day_query.failures(question.source(timeline))))
                failures = [Failure._make(row) for row in rows]
        return await send(context, question, convert_insights.failures_to_proto(timeline, failures))


async def _traffic(question: Question, timeline: Timeline) -> tuple[dict[int, Traffic], dict[tuple[str, str], Traffic]]:
    """By the number of the day, and by provider and model."""
    by_day: dict[int, Traffic] = {}
    by_model: dict[tuple[str, str], Traffic] = {}
    if timeline.periods:
        statement = question.source(timeline).sums_of_sets((("period",), ("provider", "model")), _TRAFFIC)
        for row in await question.snapshot.rows(statement):
            values: Sequence[Any] = row
            _, period, provider, model = values[:4]
            requests, successful, input_tokens, output_tokens, cost_pico = values[4:]
            traffic = Traffic(requests, successful, input_tokens + output_tokens, cost_pico)
            if period is None:
                by_model[provider, model] = traffic
            else:
                by_day[period] = traffic
    return by_day, by_model


async def _durations(question: Question, timeline: Timeline, keys: Sequence[str]) -> dict[tuple[Any, ...], Durations]:
    """By the keys."""
    if not timeline.periods:
        return {}
    return _by_key(await question.snapshot.rows(Statement(day_query.durations(question.source(timeline), keys))))


def _by_key(rows: Iterable[Sequence[Any]]) -> dict[tuple[Any, ...], Durations]:
    """Rows are those of `day_query.durations`."""
    by_key: dict[tuple[Any, ...], Durations] = {}
    for row in rows:
        *key, latency, first_token = tuple(row)
        if latency is not None:
            by_key[tuple(key)] = Durations(counts_in(latency), counts_in(first_token))
    return by_key
