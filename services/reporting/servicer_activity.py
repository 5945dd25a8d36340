"""Speaks the wire for the activity family."""

from collections.abc import Callable
from datetime import datetime

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError
from services.common.grpc_calls import Context, current_caller
from services.reporting.activity_query import ActivityQuery
from services.reporting.authorization import require_own, view_of
from services.reporting.convert import activity_to_proto, metadata_to_wire
from services.reporting.parameters import optional_uuid, storable_text
from services.reporting.periods import Timeline, floor_hour, timeline_for
from services.reporting.reader import Reader
from services.reporting.summaries import Dimension, summarize
from services.reporting.view import View
from tollgate.reporting.v1 import activity_service_pb2 as pb
from tollgate.reporting.v1.activity_service_pb2_grpc import ActivityServiceServicer


class ActivityServicer(ActivityServiceServicer):
    """Answers by day or hour what was used and what it cost."""

    def __init__(self, reader: Reader, now: Callable[[], datetime]) -> None:
        self._reader = reader
        self._now = now

    async def GetActivity(self, request: pb.GetActivityRequest, context: Context) -> pb.GetActivityResponse:
        caller, as_of = current_caller(), self._now()
        view = _view(caller, request)
        timeline, dimension = _timeline(request, as_of), _dimension(request.group_by)
        async with self._reader.snapshot(view.organization_id) as snapshot:
            await require_own(view, caller, snapshot)
            retention = await snapshot.retention(as_of)
            if retention is not None:
                timeline = timeline.since(floor_hour(retention.kept_since))
            rows = await snapshot.figures(ActivityQuery(view=view, timeline=timeline, dimension=dimension, as_of=as_of))
        await context.send_initial_metadata(metadata_to_wire(view, as_of, retention))
        return activity_to_proto(summarize(timeline, rows, dimension), dimension)


def _view(caller: Caller, request: pb.GetActivityRequest) -> View:
    return view_of(
        caller,
        organization_id=request.organization_id,
        project_id=storable_text("projectId", request.project_id),
        api_key_id=optional_uuid("apiKeyId", request.api_key_id),
    )


def _timeline(request: pb.GetActivityRequest, as_of: datetime) -> Timeline:
    return timeline_for(
        days=request.days,
        from_date=request.from_date,
        to_date=request.to_date,
        timezone=request.timezone,
        granularity=request.granularity,
        as_of=as_of,
    )


def _dimension(group_by: str) -> Dimension:
    try:
        return Dimension(group_by or "model")
    except ValueError:
        raise InvalidRequestError(
            "groupBy", f"must be 'model', 'apiKey', 'provider' or 'workflow', got '{group_by}'."
        ) from None
