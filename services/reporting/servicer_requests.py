"""Speaks the wire for single calls."""

from uuid import UUID

from services.common.errors import InvalidRequestError, NotFoundError
from services.common.grpc_calls import Context, current_caller, query_of
from services.reporting.asking import Asker, send, snake_view
from services.reporting.authorization import one_organization, view_of
from services.reporting.convert_requests import request_to_proto, summary_to_proto
from services.reporting.page_token import id_from_page_token, page_token_for
from services.reporting.parameters import optional_uuid, whole_number
from services.reporting.request_filter import RequestFilter, metadata_in, request_filter_from
from tollgate.reporting.v1 import request_service_pb2 as pb
from tollgate.reporting.v1.request_service_pb2_grpc import RequestServiceServicer

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
OFFSET_MAX = 10_000


class RequestServicer(RequestServiceServicer):
    """Shows single calls of one organization, as far back as its plan says."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:
        as_of = self._asker.now()
        calls = _filter(request, context)
        one_organization(calls.view)
        limit = whole_number("limit", request.limit, default=LIMIT_DEFAULT, least=1, most=LIMIT_MAX)
        offset = whole_number("offset", request.offset, default=0, least=0, most=OFFSET_MAX)
        before = id_from_page_token(request.page_token, calls)
        if offset and before is not None:
            raise InvalidRequestError("offset", "must not be given with page_token; leave one of them out.")
        async with self._asker.about(calls.view, as_of) as question:
            listing = question.listing(calls)
            rows = await question.snapshot.request_page(listing, before, limit, offset)
            total = await question.request_count(listing)
        page = rows[:limit]
        answer = pb.ListRequestsResponse(
            requests=map(summary_to_proto, page),
            next_page_token=page_token_for(page[-1].request_id, calls) if len(rows) > limit else "",
            total=total,
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


def _filter(request: pb.ListRequestsRequest, context: Context) -> RequestFilter:
    metadata = dict(request.metadata) | metadata_in(query_of(context))
    return request_filter_from(snake_view(current_caller(), request), request, metadata)


def _id_in_path(request: pb.GetRequestRequest) -> UUID:
    """Whatever is no UUID names no call."""
    try:
        request_id = optional_uuid("request_id", request.request_id)
    except InvalidRequestError:
        request_id = None
    if request_id is None:
        raise NotFoundError(f"request {request.request_id}")
    return request_id
