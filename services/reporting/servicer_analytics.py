"""Speaks the wire for the analytics family."""

from services.common.errors import InvalidRequestError
from services.common.grpc_calls import Context, current_caller
from services.reporting.analytics import Analytics, Counts, Grouping
from services.reporting.analytics_query import analytics_from_rows, analytics_sums
from services.reporting.asking import Asker, send, snake_view
from services.reporting.periods import RETENTION_DAYS_MAX, Timeline, last_days
from tollgate.reporting.v1 import analytics_service_pb2 as pb
from tollgate.reporting.v1.analytics_service_pb2_grpc import AnalyticsServiceServicer

_GROUPINGS = {grouping.name.lower(): grouping for grouping in Grouping}


class AnalyticsServicer(AnalyticsServiceServicer):
    """Counts calls by provider, model, project and day."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def GetAnalytics(self, request: pb.GetAnalyticsRequest, context: Context) -> pb.GetAnalyticsResponse:
        as_of = self._asker.now()
        view, grouping = snake_view(current_caller(), request), _grouping(request.group_by)
        # Without a number of days, all that anybody may see; retention does the rest.
        timeline = last_days(request.days, as_of, shows_idle=False, default=RETENTION_DAYS_MAX + 1)
        analytics = Analytics()
        async with self._asker.about(view, as_of) as question:
            timeline = question.kept(timeline)
            if timeline.periods:
                rows = await question.snapshot.rows(analytics_sums(question.source(timeline), grouping))
                analytics = analytics_from_rows(rows, grouping)
        return await send(context, question, _to_proto(analytics, timeline, grouping))


def _grouping(name: str) -> Grouping:
    try:
        return _GROUPINGS[name or "provider"]
    except KeyError:
        raise InvalidRequestError("group_by", f"must be 'provider', 'model' or 'project', got '{name}'.") from None


def _to_proto(analytics: Analytics, timeline: Timeline, grouping: Grouping) -> pb.GetAnalyticsResponse:
    total = analytics.total
    return pb.GetAnalyticsResponse(
        total_requests=total.requests,
        successful_requests=total.successful,
        failed_requests=total.failed,
        success_rate=total.success_rate,
        providers=_counts_to_proto(analytics.by_group[Grouping.PROVIDER]),
        models=_counts_to_proto(analytics.by_group[Grouping.MODEL]),
        projects=_counts_to_proto(analytics.by_group[Grouping.PROJECT]),
        daily=[
            pb.AnalyticsDay(
                date=timeline.periods[day].label,
                requests=counts.requests,
                successful=counts.successful,
                failed=counts.failed,
                failure_rate=counts.failure_rate,
            )
            for day, counts in sorted(analytics.by_day.items())
        ],
        group_by=grouping.name.lower(),
        daily_breakdown=[
            pb.AnalyticsBreakdown(
                date=timeline.periods[day].label,
                key=key,
                requests=counts.requests,
                successful=counts.successful,
                failed=counts.failed,
                failure_rate=counts.failure_rate,
            )
            for (day, key), counts in sorted(analytics.by_day_and_key.items())
        ],
    )


def _counts_to_proto(by_key: dict[str, Counts]) -> dict[str, pb.AnalyticsCounts]:
    return {
        key: pb.AnalyticsCounts(requests=counts.requests, successful=counts.successful, failed=counts.failed)
        for key, counts in by_key.items()
    }
