"""The model routes over gRPC: the same calls, the same core."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, aclosing
from typing import Any, TypeVar
from urllib.parse import unquote

from google.api.httpbody_pb2 import HttpBody

from services.common.errors import DomainError, ErrorKind, UnavailableError
from services.common.grpc_calls import Context, headers_of
from services.router.calls.admission import ReadBody
from services.router.calls.calls import Calls, StreamedAnswer, WholeAnswer
from services.router.calls.records import Arrival
from services.router.errors import ClientGoneError, ProviderFailedError
from services.router.faces.addresses import client_address
from services.router.faces.running_calls import Hold, RunningCalls
from services.router.formats.endpoint import Endpoint
from services.router.formats.registry import CHAT_COMPLETIONS, EMBEDDINGS, IMAGE_GENERATIONS, MESSAGES, RESPONSES
from tollgate.router.v1 import inference_service_pb2 as rpc
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceServicer

# Pieces that may wait for a slow client before the provider is read no further.
_PIECES_MAX = 16
_Result = TypeVar("_Result")
_Answer = WholeAnswer | StreamedAnswer


class ProviderRefusedError(DomainError):
    """The provider refused the request as the caller's fault."""

    kind = ErrorKind.INVALID
    reason = "INVALID_REQUEST"


class InferenceServicer(InferenceServiceServicer):
    """Speaks gRPC for one worker."""

    def __init__(self, calls: Calls, running: RunningCalls, trusted_proxy_count: int = 0) -> None:
        self._calls = calls
        self._running = running
        self._trusted_proxy_count = trusted_proxy_count
        # Calls whose client may be gone, but whose record is still to be made.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def CreateChatCompletion(
        self, request: rpc.CreateChatCompletionRequest, context: Context
    ) -> rpc.CreateChatCompletionResponse:
        return rpc.CreateChatCompletionResponse(body=await self._whole(CHAT_COMPLETIONS, request.body, context))

    async def StreamChatCompletion(
        self, request: rpc.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[rpc.StreamChatCompletionResponse]:
        async with aclosing(self._streamed(CHAT_COMPLETIONS, request.body, context)) as pieces:
            async for piece in pieces:
                yield rpc.StreamChatCompletionResponse(body=piece)

    async def CreateResponse(self, request: rpc.CreateResponseRequest, context: Context) -> rpc.CreateResponseResponse:
        return rpc.CreateResponseResponse(body=await self._whole(RESPONSES, request.body, context))

    async def StreamResponse(
        self, request: rpc.StreamResponseRequest, context: Context
    ) -> AsyncIterator[rpc.StreamResponseResponse]:
        async with aclosing(self._streamed(RESPONSES, request.body, context)) as pieces:
            async for piece in pieces:
                yield rpc.StreamResponseResponse(body=piece)

    async def CreateEmbedding(
        self, request: rpc.CreateEmbeddingRequest, context: Context
    ) -> rpc.CreateEmbeddingResponse:
        return rpc.CreateEmbeddingResponse(body=await self._whole(EMBEDDINGS, request.body, context))

    async def GenerateImage(self, request: rpc.GenerateImageRequest, context: Context) -> rpc.GenerateImageResponse:
        return rpc.GenerateImageResponse(body=await self._whole(IMAGE_GENERATIONS, request.body, context))

    async def StreamImage(
        self, request: rpc.StreamImageRequest, context: Context
    ) -> AsyncIterator[rpc.StreamImageResponse]:
        async with aclosing(self._streamed(IMAGE_GENERATIONS, request.body, context)) as pieces:
            async for piece in pieces:
                yield rpc.StreamImageResponse(body=piece)

    async def CreateMessage(self, request: rpc.CreateMessageRequest, context: Context) -> rpc.CreateMessageResponse:
        return rpc.CreateMessageResponse(body=await self._whole(MESSAGES, request.body, context))

    async def StreamMessage(
        self, request: rpc.StreamMessageRequest, context: Context
    ) -> AsyncIterator[rpc.StreamMessageResponse]:
        async with aclosing(self._streamed(MESSAGES, request.body, context)) as pieces:
            async for piece in pieces:
                yield rpc.StreamMessageResponse(body=piece)

    async def _whole(self, endpoint: Endpoint, body: HttpBody, context: Context) -> HttpBody:
        arrival = Arrival(address=self._client_address(context))
        call = self._call(arrival, endpoint, body, context, streams=False)

        async def coming() -> _Answer:
            # In a task of its own: a client that hangs up cancels the handler, but not the making of the record.
            return await asyncio.shield(self._run(call))

        answer = await _head(arrival, coming(), context)
        assert isinstance(answer, WholeAnswer)  # noqa: S101 narrows the type
        return HttpBody(content_type=_content_type(answer), data=answer.body)

    async def _streamed(self, endpoint: Endpoint, body: HttpBody, context: Context) -> AsyncGenerator[HttpBody]:
        arrival = Arrival(address=self._client_address(context))
        call = self._call(arrival, endpoint, body, context, streams=True)
        pieces = _Pieces()

        async def coming() -> _Answer:
            self._run(lambda hold: pieces.fill(call(hold)))
            return await pieces.answer

        try:
            answer = await _head(arrival, coming(), context)
            content_type = _content_type(answer)
            while (piece := await pieces.next()) is not None:
                yield HttpBody(content_type=content_type, data=piece)
                content_type = ""
            if pieces.is_broken_off:
                raise UnavailableError("The answer was taken too slowly and breaks off here.")
        finally:
            pieces.stop()

    def cut_off(self) -> None:
        """Ends what is still running. Every call makes its record all the same."""
        for task in self._tasks:
            task.cancel()

    async def wait_for_running(self) -> None:
        """Returns when every record is made."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _client_address(self, context: Context) -> str:
        # "ipv4:192.0.2.1:4711", "ipv6:%5B2001:db8::1%5D:4711"
        _, _, peer = unquote(str(context.peer())).partition(":")
        return client_address(peer, headers_of(context).get("x-forwarded-for", ""), self._trusted_proxy_count)

    def _call(
        self, arrival: Arrival, endpoint: Endpoint, body: HttpBody, context: Context, *, streams: bool
    ) -> Callable[[Hold], Coroutine[Any, Any, _Answer]]:
        def call(hold: Hold) -> Coroutine[Any, Any, _Answer]:
            reader = _reader(body.data, hold)
            return self._calls.answer(arrival, endpoint, headers_of(context), reader, streams=streams)

        return call

    def _run(self, work: Callable[[Hold], Coroutine[Any, Any, _Result]]) -> asyncio.Task[_Result]:
        """Counts as a running call until it is done. Raises UnavailableError when there are as many as may be."""
        with ExitStack() as entered:
            task = asyncio.create_task(work(entered.enter_context(self._running.one_more())))
            running = entered.pop_all()

        def end(task: asyncio.Task[_Result]) -> None:
            running.close()
            self._tasks.discard(task)

        self._tasks.add(task)
        task.add_done_callback(end)
        return task


class _Pieces:
    """A relayed stream, turned from being sent into being read. The relay runs on when the reader stops."""

    def __init__(self) -> None:
        # There when the head of the answer is.
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_MAX)
        self._is_read = True
        # It ended before all of it was taken.
        self.is_broken_off = False

    async def fill(self, call: Awaitable[_Answer]) -> None:
        try:
            answer = await call
        except Exception as error:
            if not self.answer.cancelled():
                self.answer.set_exception(error)
            return
        except asyncio.CancelledError:
            self.answer.cancel()
            raise
        if not self.answer.cancelled():
            self.answer.set_result(answer)
        if isinstance(answer, StreamedAnswer):
            try:
                await answer.relay(self._send)
            except ClientGoneError:
                self.is_broken_off = True
            finally:
                if self._is_read:
                    await self._pieces.put(None)

    async def next(self) -> bytes | None:
        """The next piece; None at the end."""
        return await self._pieces.get()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._is_read = False
        # The relay may be waiting for room.
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def _send(self, piece: bytes) -> None:
        if not self._is_read:
            raise ClientGoneError
        await self._pieces.put(piece)


async def _head(arrival: Arrival, coming: Awaitable[_Answer], context: Context) -> _Answer:
    """The answer, once its head has been sent. Raises what the call was refused for."""
    try:
        answer = await coming
    except DomainError:
        await context.send_initial_metadata((("x-tollgate-request-id", arrival.request_id),))
        raise
    headers = [(name, value) for name, value in answer.headers if name.startswith("x-tollgate-")]
    await context.send_initial_metadata(headers)
    if isinstance(answer, WholeAnswer) and answer.status >= 400:
        raise _refusal(answer)
    return answer


def _reader(body: bytes, hold: Hold) -> ReadBody:
    async def read_body() -> bytes:
        hold(len(body))
        return body

    return read_body


def _refusal(answer: WholeAnswer) -> DomainError:
    body = answer.body.decode(errors="replace")
    provider = dict(answer.headers).get("x-tollgate-provider", "")
    if answer.status >= 500:
        return ProviderFailedError(f"{provider} answered {answer.status}", provider)
    return ProviderRefusedError(
        f"{provider} refused the request with {answer.status}; see provider_body.", provider_body=body
    )


def _content_type(answer: _Answer) -> str:
    return dict(answer.headers).get("content-type", "application/json")
