"""Speaks the wire for exports: files, streamed as they are read."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from google.api.httpbody_pb2 import HttpBody

from services.common.errors import DomainError, ErrorKind, InvalidRequestError
from services.common.grpc_calls import Context, current_caller, query_of
from services.reporting import export_query
from services.reporting.activity_export import COLUMNS, GROUP_COLUMNS, Row, rows_of_groups, rows_of_periods
from services.reporting.asking import Asker, Question, snake_view
from services.reporting.authorization import one_organization
from services.reporting.convert import metadata_to_wire
from services.reporting.files import CHUNK_BYTES, Table, chunks, csv_lines, jsonl_lines
from services.reporting.parameters import optional_uuid, whole_number
from services.reporting.periods import Timeline, timeline_for
from services.reporting.request_filter import RequestFilter, metadata_in, request_filter_from
from services.reporting.servicer_activity import activity_view, dimension_named
from services.reporting.summaries import Dimension
from tollgate.reporting.v1 import export_service_pb2 as pb
from tollgate.reporting.v1.export_service_pb2_grpc import ExportServiceServicer

CSV, JSONL = "text/csv; charset=utf-8; header=present", "application/jsonl"
# Each holds a connection to the database for as long as its client takes.
EXPORTS_MAX = 4
LIMIT_MAX = 999_999_999
RETRY_SECONDS = 30

RequestsRequest = pb.ExportRequestsCsvRequest | pb.ExportRequestsJsonlRequest
ActivityRequest = pb.ExportActivityCsvRequest | pb.ExportActivityJsonlRequest


class TooManyExportsError(DomainError):
    kind, reason, retry_after_seconds = ErrorKind.EXHAUSTED, "RATE_LIMITED", RETRY_SECONDS

    def __init__(self) -> None:
        super().__init__("Too many exports are running; try again when one has ended.")


class ExportServicer(ExportServiceServicer):
    """Streams calls and activity. A failure before the first byte is an ordinary one; later ones cut the answer off."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._running = asyncio.Semaphore(EXPORTS_MAX)

    async def ExportRequestsCsv(
        self, request: pb.ExportRequestsCsvRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for chunk in self._requests(request, context, export_query.csv_copy, "requests.csv"):
            yield HttpBody(content_type=CSV, data=chunk)

    async def ExportRequestsJsonl(
        self, request: pb.ExportRequestsJsonlRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for chunk in self._requests(request, context, export_query.jsonl_copy, "requests.jsonl"):
            yield HttpBody(content_type=JSONL, data=chunk)

    async def ExportActivityCsv(
        self, request: pb.ExportActivityCsvRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for chunk in self._activity(request, context, csv_lines, "activity.csv"):
            yield HttpBody(content_type=CSV, data=chunk)

    async def ExportActivityJsonl(
        self, request: pb.ExportActivityJsonlRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for chunk in self._activity(request, context, jsonl_lines, "activity.jsonl"):
            yield HttpBody(content_type=JSONL, data=chunk)

    async def _requests(
        self, request: RequestsRequest, context: Context, copy: Callable[..., export_query.Copy], file_name: str
    ) -> AsyncIterator[bytes]:
        as_of = self._asker.now()
        calls = _filter(request, context)
        one_organization(calls.view)
        before = optional_uuid("page_token", request.page_token)
        limit = whole_number("limit", request.limit, default=LIMIT_MAX, least=1, most=LIMIT_MAX)
        async with self._one_of_few(), self._asker.about(calls.view, as_of) as question:
            listing = question.listing(calls)
            row_count = min(limit, await question.request_count(listing, before))
            await _begin(context, question, file_name, row_count)
            gathered = bytearray()
            async for line in question.snapshot.copied(*copy(listing, before, limit)):
                gathered += line if copy is export_query.jsonl_copy else line[:-1] + b"\r\n"
                if len(gathered) >= CHUNK_BYTES:
                    yield bytes(gathered)
                    gathered.clear()
            # At least one message, or the answer has no type.
            yield bytes(gathered)

    async def _activity(
        self,
        request: ActivityRequest,
        context: Context,
        lines: Callable[[Sequence[str], Table], Iterator[bytes]],
        file_name: str,
    ) -> AsyncIterator[bytes]:
        as_of = self._asker.now()
        view = activity_view(current_caller(), request)
        timeline = _timeline_from(request.page_token, _timeline(request, as_of))
        dimension = dimension_named(request.group_by) if request.group_by else None
        async with self._one_of_few(), self._asker.about(view, as_of) as question:
            kept = question.kept(timeline)
            table = await _activity_table(question, kept, dimension)
            await _begin(context, question, file_name, len(table))
        names = COLUMNS if dimension is None else GROUP_COLUMNS
        for chunk in chunks(lines(names, table)):
            yield chunk
        if not table:
            yield b""  # at least one message, or the answer has no type

    @asynccontextmanager
    async def _one_of_few(self) -> AsyncIterator[None]:
        if self._running.locked():
            raise TooManyExportsError
        async with self._running:
            yield


def _filter(request: RequestsRequest, context: Context) -> RequestFilter:
    metadata = dict(request.metadata) | metadata_in(query_of(context))
    return request_filter_from(snake_view(current_caller(), request), request, metadata)


async def _begin(context: Context, question: Question, file_name: str, row_count: int) -> None:
    headers = (
        *metadata_to_wire(question.view, question.as_of, question.retention),
        ("x-total-rows", str(row_count)),
        ("content-disposition", f'attachment; filename="{file_name}"'),
    )
    await context.send_initial_metadata(headers)


def _timeline(request: ActivityRequest, as_of: datetime) -> Timeline:
    return timeline_for(
        days=request.days,
        from_date=request.from_date,
        to_date=request.to_date,
        timezone=request.timezone,
        granularity=request.granularity,
        as_of=as_of,
    )


def _timeline_from(page_token: str, timeline: Timeline) -> Timeline:
    """The periods from the one of this label on."""
    if not page_token:
        return timeline
    labels = [period.label for period in timeline.periods]
    if page_token not in labels:
        raise InvalidRequestError("page_token", "must be a date of an answer to the same parameters.")
    return Timeline(timeline.periods[labels.index(page_token) :], timeline.shows_idle)


async def _activity_table(question: Question, timeline: Timeline, dimension: Dimension | None) -> list[Row]:
    """Of the periods, or of their groups."""
    if dimension is not None:
        rows = await question.snapshot.groups(question.source(timeline), dimension) if timeline.periods else []
        return rows_of_groups(timeline, rows)
    return rows_of_periods(
        timeline, await question.snapshot.totals(question.source(timeline)) if timeline.periods else []
    )
