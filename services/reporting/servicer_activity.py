"""Speaks the wire for the activity family."""

from typing import Protocol

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError
from services.common.grpc_calls import Context, current_caller
from services.reporting.asking import Asker, send
from services.reporting.authorization import view_of
from services.reporting.convert import activity_to_proto, summary_to_proto
from services.reporting.parameters import optional_uuid, storable_text
from services.reporting.periods import timeline_for
from services.reporting.summaries import ActivitySums, Dimension, split, summarize
from services.reporting.view import View
from tollgate.reporting.v1 import activity_service_pb2 as pb
from tollgate.reporting.v1.activity_service_pb2_grpc import ActivityServiceServicer


class ActivityServicer(ActivityServiceServicer):
    """Answers by day or hour, or in all, what was used and what it cost."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def GetActivity(self, request: pb.GetActivityRequest, context: Context) -> pb.GetActivityResponse:
        as_of = self._asker.now()
        view, dimension = activity_view(current_caller(), request), dimension_named(request.group_by or "model")
        timeline = timeline_for(
            days=request.days,
            from_date=request.from_date,
            to_date=request.to_date,
            timezone=request.timezone,
            granularity=request.granularity,
            as_of=as_of,
        )
        async with self._asker.about(view, as_of) as question:
            timeline = question.kept(timeline)
            sums = ActivitySums([], [], [])
            if timeline.periods:
                sums = await question.snapshot.figures(question.source(timeline), dimension)
        return await send(context, question, activity_to_proto(summarize(timeline, sums), dimension))

    async def GetActivitySummary(
        self, request: pb.GetActivitySummaryRequest, context: Context
    ) -> pb.GetActivitySummaryResponse:
        as_of = self._asker.now()
        view = activity_view(current_caller(), request)
        timeline = timeline_for(
            days=request.days,
            from_date=request.from_date,
            to_date=request.to_date,
            timezone=request.timezone,
            granularity="",
            as_of=as_of,
        )
        async with self._asker.about(view, as_of) as question:
            kept = question.kept(timeline)
            rows = await question.snapshot.totals(question.source(kept)) if kept.periods else []
        return await send(context, question, summary_to_proto(timeline, split(rows)))


class ActivityRequest(Protocol):
    """What a request in camelCase says about which calls it is about. "" is left out."""

    @property
    def organization_id(self) -> str: ...
    @property
    def project_id(self) -> str: ...
    @property
    def api_key_id(self) -> str: ...


def activity_view(caller: Caller, request: ActivityRequest) -> View:
    """What a request in camelCase is about. Raises what `view_of` does."""
    return view_of(
        caller,
        organization_id=request.organization_id,
        project_id=storable_text("projectId", request.project_id),
        api_key_id=optional_uuid("apiKeyId", request.api_key_id),
    )


def dimension_named(group_by: str) -> Dimension:
    try:
        return Dimension(group_by)
    except ValueError:
        raise InvalidRequestError(
            "groupBy", f"must be 'model', 'apiKey', 'provider' or 'workflow', got '{group_by}'."
        ) from None
