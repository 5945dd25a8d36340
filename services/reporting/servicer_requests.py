"""Speaks the wire for single calls."""

from uuid import UUID

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError, NotFoundError
from services.common.grpc_calls import Context, current_caller
from services.reporting.asking import Asker, send
from services.reporting.authorization import one_organization, view_of
from services.reporting.convert_requests import request_to_proto, summary_to_proto
from services.reporting.page_token import id_from_page_token, page_token_for
from services.reporting.parameters import optional_uuid, storable_text, whole_number
from services.reporting.request_filter import RequestFilter, request_filter_from
from tollgate.reporting.v1 import request_service_pb2 as pb
from tollgate.reporting.v1.request_service_pb2_grpc import RequestServiceServicer

LIMIT_DEFAULT = 50
LIMIT_MAX = 500


class RequestServicer(RequestServiceServicer):
    """Shows single calls of one organization, as far back as its plan says."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:
        as_of = self._asker.now()
        calls = _filter(current_caller(), request)
        one_organization(calls.view)
        limit = whole_number("limit", request.limit, default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)
        before = id_from_page_token(request.page_token, calls)
        async with self._asker.about(calls.view, as_of) as question:
            page = await question.snapshot.request_page(calls, question.places, question.since, before, limit)
        answer = pb.ListRequestsResponse(
            requests=map(summary_to_proto, page.rows),
            next_page_token=page_token_for(page.rows[-1].request_id, calls) if page.has_more else "",
            total=page.total,
        )
        return await send(context, question, answer)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:
        as_of = self._asker.now()
        view = view_of(current_caller(), organization_id=request.organization_id, project_id="")
        one_organization(view)
        async with self._asker.about(view, as_of) as question:
            found = await question.snapshot.request(view, question.places, question.since, _id_in_path(request))
        if found is None:
            raise NotFoundError(f"request {request.request_id}")
        return await send(context, question, request_to_proto(found))


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
