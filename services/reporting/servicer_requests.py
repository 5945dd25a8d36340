"""Speaks the wire for single calls."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError, NotFoundError
from services.common.grpc_calls import Context, current_caller
from services.reporting.authorization import one_organization, require_own, view_of
from services.reporting.convert import metadata_to_wire
from services.reporting.convert_requests import request_to_proto, summary_to_proto
from services.reporting.page_token import id_from_page_token, page_token_for
from services.reporting.parameters import optional_uuid, storable_text, whole_number
from services.reporting.reader import Reader
from services.reporting.request_filter import RequestFilter, request_filter_from
from tollgate.reporting.v1 import request_service_pb2 as pb
from tollgate.reporting.v1.request_service_pb2_grpc import RequestServiceServicer

LIMIT_DEFAULT = 50
LIMIT_MAX = 500


class RequestServicer(RequestServiceServicer):
    """Shows single calls of one organization, as far back as its plan says."""

    def __init__(self, reader: Reader, now: Callable[[], datetime]) -> None:
        self._reader = reader
        self._now = now

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:
        caller, as_of = current_caller(), self._now()
        calls = _filter(caller, request)
        organization_id = one_organization(calls.view)
        limit = whole_number("limit", request.limit, default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)
        before = id_from_page_token(request.page_token, calls)
        async with self._reader.snapshot(organization_id) as snapshot:
            await require_own(calls.view, caller, snapshot)
            retention = await snapshot.retention(as_of)
            # Without an organization there is nothing to show.
            since = retention.kept_since if retention is not None else as_of
            page = await snapshot.request_page(calls, since, before, limit)

        await context.send_initial_metadata(metadata_to_wire(calls.view, as_of, retention))
        return pb.ListRequestsResponse(
            requests=map(summary_to_proto, page.rows),
            next_page_token=page_token_for(page.rows[-1].request_id, calls) if page.has_more else "",
            total=page.total,
        )

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:
        caller, as_of = current_caller(), self._now()
        view = view_of(caller, organization_id=request.organization_id, project_id="")
        async with self._reader.snapshot(one_organization(view)) as snapshot:
            retention = await snapshot.retention(as_of)
            since = retention.kept_since if retention is not None else as_of
            found = await snapshot.request(view, since, _id_in_path(request))
        if found is None:
            raise NotFoundError(f"request {request.request_id}")

        await context.send_initial_metadata(metadata_to_wire(view, as_of, retention))
        return request_to_proto(found)


def _filter(caller: Caller, request: pb.ListRequestsRequest) -> RequestFilter:
    view = view_of(
        caller,
        organization_id=request.organization_id,
        project_id=storable_text("project_id", request.project_id),
        api_key_id=optional_uuid("api_key_id", request.api_key_id),
    )
    return request_filter_from(
        view, provider=request.provider, model=request.model, workflow=request.workflow, status=request.status
    )


def _id_in_path(request: pb.GetRequestRequest) -> UUID:
    """Whatever is no UUID names no call."""
    try:
        request_id = optional_uuid("request_id", request.request_id)
    except InvalidRequestError:
        request_id = None
    if request_id is None:
        raise NotFoundError(f"request {request.request_id}")
    return request_id
