"""The model routes over gRPC: the same calls, the same core."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from services.common.errors import DomainError, ErrorKind
from services.common.grpc_calls import Context, headers_of
from services.router.calls import Calls, Headers, StreamedAnswer, WholeAnswer
from services.router.errors import ClientGoneError, ProviderFailedError
from services.router.records import Arrival
from tollgate.router.v1.inference_service_pb2 import (
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceServicer

# Pieces that may wait for a slow client before the provider is read no further.
_PIECES_MAX = 16


class ProviderRefusedError(DomainError):
    """The provider refused the request as the caller's fault."""

    kind = ErrorKind.INVALID
    reason = "INVALID_REQUEST"


class InferenceServicer(InferenceServiceServicer):
    """Speaks gRPC for one worker."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # Calls whose client may be gone, but whose record is still to be made.
        self._running: set[asyncio.Task[Any]] = set()

    async def CreateChatCompletion(
        self, request: CreateChatCompletionRequest, context: Context
    ) -> CreateChatCompletionResponse:
        answer = await self._answer(request.body.data, context, streams=False)
        assert isinstance(answer, WholeAnswer)  # noqa: S101 narrows the type
        return CreateChatCompletionResponse(body=_body(answer.headers, answer.body))

    async def StreamChatCompletion(
        self, request: StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[StreamChatCompletionResponse]:
        answer = await self._answer(request.body.data, context, streams=True)
        assert isinstance(answer, StreamedAnswer)  # noqa: S101 narrows the type
        content_type = _content_type(answer.headers)
        async for piece in _Pieces(answer, self._running):
            yield StreamChatCompletionResponse(body=HttpBody(content_type=content_type, data=piece))
            content_type = ""

    async def wait_for_running(self) -> None:
        """Returns when every record is made."""
        if self._running:
            await asyncio.wait(self._running)

    async def _answer(self, body: bytes, context: Context, *, streams: bool) -> WholeAnswer | StreamedAnswer:
        arrival = Arrival()

        async def read_body() -> bytes:
            return body

        # In a task of its own: a client that hangs up cancels the handler, but not the making of the record.
        task = asyncio.create_task(self._calls.answer(arrival, headers_of(context), read_body, streams=streams))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            answer = await asyncio.shield(task)
        except DomainError:
            await context.send_initial_metadata((("x-tollgate-request-id", str(arrival.request_id)),))
            raise
        await context.send_initial_metadata(_metadata(answer.headers))
        if isinstance(answer, WholeAnswer) and answer.status >= 400:
            raise _refusal(answer)
        return answer


class _Pieces:
    """A relayed stream, turned from being sent into being read. The relay runs on when the reader stops."""

    def __init__(self, answer: StreamedAnswer, running: set[asyncio.Task[Any]]) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_MAX)
        self._is_read = True
        self._relay = asyncio.create_task(self._run(answer))
        running.add(self._relay)
        self._relay.add_done_callback(running.discard)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            await self._relay
        finally:
            self._is_read = False
            # The relay may be waiting for room in the queue.
            while not self._pieces.empty():
                self._pieces.get_nowait()

    async def _run(self, answer: StreamedAnswer) -> None:
        try:
            await answer.relay(self._send)
        finally:
            if self._is_read:
                await self._pieces.put(None)

    async def _send(self, piece: bytes) -> None:
        if not self._is_read:
            raise ClientGoneError
        await self._pieces.put(piece)


def _refusal(answer: WholeAnswer) -> DomainError:
    body = answer.body.decode(errors="replace")
    provider = dict(answer.headers).get("x-tollgate-provider", "")
    if answer.status >= 500:
        return ProviderFailedError(f"{provider} answered {answer.status}", provider)
    return ProviderRefusedError(
        f"{provider} refused the request with {answer.status}; see provider_body.", provider_body=body
    )


def _metadata(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.startswith("x-tollgate-")]


def _content_type(headers: Headers) -> str:
    return dict(headers).get("content-type", "application/json")


def _body(headers: Headers, data: bytes) -> HttpBody:
    return HttpBody(content_type=_content_type(headers), data=data)
