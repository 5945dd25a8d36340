"""Passes a streamed answer on while it comes, and sees to it that the record is durable before it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from services.common.errors import DomainError
from services.router.calls.admission import AdmittedCall
from services.router.calls.answers import explaining_event
from services.router.calls.attempts import OpenStream
from services.router.calls.completion import take_usage
from services.router.calls.recording import Recorder
from services.router.calls.stream_copy import StreamCopy
from services.router.errors import ClientGoneError
from services.router.formats.event_stream import EventTooLongError
from services.router.metrics import count_attempt
from services.router.routing.routing import Failure, PlannedAttempt
from services.router.upstream import UpstreamError
from tollgate.ledger.v1 import usage_pb2

# How long to go on reading for the usage when nobody listens any more.
DRAIN_SECONDS_MAX = 30
STALLED_SECONDS_MAX = 60

Send = Callable[[bytes], Awaitable[None]]


class StreamRelay:
    """One streamed answer, from its first chunk to its record."""

    def __init__(
        self,
        call: AdmittedCall,
        stream: OpenStream,
        recorder: Recorder,
        *,
        note_failure: Callable[[PlannedAttempt, Failure], None],
        copy: StreamCopy | None,
    ) -> None:
        """With a copy to be filled, the answer is read to its end also when the client is gone."""
        self._record = call.record
        self._request = call.request
        self._answer_format = call.answer_format
        self._stream = stream
        self._recorder = recorder
        self._note_failure = note_failure
        self._copy = copy
        self._events = stream.events
        self._failure: Failure | None = None
        self._client_gone = False

    async def run(self, send: Send) -> None:
        """Sends the answer. `send` raises ClientGoneError when nobody is there any more. Always makes a record.

        A stream that went wrong ends with an error event and without its end marker. Raises ClientGoneError when it was
        not taken to its end, which must not look like one to a client that was only slow.
        """
        try:
            await self._pump(send)
        except BaseException:
            # Cut off at the end of the drain time, or a bug: either way not the provider's doing.
            if not self._client_gone:
                self._failure = Failure("gateway_error", self._stream.answer.status)
            raise
        finally:
            self._stream.answer.close()
            ending = await self._finish()
        await self._send(send, ending)
        if self._client_gone:
            raise ClientGoneError

    async def _pump(self, send: Send) -> None:
        # The provider's own limits are below this; only a client that takes nothing can hold us up for so long.
        seconds_max = self._stream.upstream.provider.total_timeout_seconds + STALLED_SECONDS_MAX
        try:
            async with asyncio.timeout(seconds_max):
                await self._pass_on(send)
            if self._client_gone:
                await self._drain()
        except TimeoutError:
            self._client_gone = True
        except UpstreamError as error:
            self._failure = error.failure
        except EventTooLongError:
            self._failure = Failure("bad_answer", self._stream.answer.status)

    async def _pass_on(self, send: Send) -> None:
        """Until the answer ends, or nobody is there any more."""
        await self._record.keep_response(b"", self._stream.answer.content_type)
        piece = self._stream.first_piece
        while True:
            self._keep(piece)
            await self._send(send, piece)
            if self._client_gone:
                return
            chunk = await self._stream.answer.read_chunk()
            if chunk is None:
                break
            piece = self._events.feed(chunk)
        piece = self._events.end()
        self._keep(piece)
        await self._send(send, piece)

    async def _drain(self) -> None:
        """Reads on for the usage, where the provider is configured so, or for a retry of the client."""
        if not self._stream.upstream.provider.drains and self._copy is None:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                while (chunk := await self._stream.answer.read_chunk()) is not None:
                    self._keep(self._events.feed(chunk))
                self._keep(self._events.end())
        except (TimeoutError, UpstreamError, EventTooLongError):
            # The client left before anything else went wrong, and pays for what was streamed.
            return

    def _keep(self, piece: bytes) -> None:
        if self._copy is not None:
            self._copy.add(piece)

    async def _send(self, send: Send, piece: bytes) -> None:
        if not piece or self._client_gone:
            return
        self._record.keep_piece(piece)
        try:
            await send(piece)
        except ClientGoneError:
            self._client_gone = True

    async def _finish(self) -> bytes:
        """Makes the record durable. Returns what the client gets last: the end marker, or an error."""
        if self._failure is None and not self._client_gone and not self._events.is_complete:
            self._failure = Failure("broken_stream", self._stream.answer.status)
        error_type = self._failure.error_type if self._failure is not None else ""
        self._record.end_attempt(self._stream.answer.status, self._failure)
        if error_type in ("", "gateway_error"):
            count_attempt(self._stream.planned.candidate.provider, error_type)
        elif self._failure is not None:
            self._note_failure(self._stream.planned, self._failure)
        with suppress(asyncio.CancelledError):  # Cut off while estimating: a record without usage is better than none.
            await take_usage(self._record, self._request, self._stream.planned.candidate, self._events)
        if self._failure is None and not self._client_gone:
            self._record.keep_piece(self._events.held)
        record = self._record.end(self._outcome(), self._stream.answer.status, error_type)
        try:
            await self._recorder.finish(record)
        except DomainError as error:
            return self._request.endpoint.error_event(error.reason.lower(), error.message)
        if self._failure is not None and not self._events.failed:
            provider = self._stream.planned.candidate.provider
            return self._request.endpoint.error_event("provider_failed", f"{provider} broke off in mid-answer.")
        if self._failure is not None:
            return self._events.held
        if self._copy is not None and self._events.is_complete:
            self._copy.complete(self._events.held)
        return explaining_event(self._answer_format, record) + self._events.held

    def _outcome(self) -> "usage_pb2.Outcome.ValueType":
        if self._failure is None:
            if self._client_gone:
                return usage_pb2.OUTCOME_CLIENT_GONE
            return usage_pb2.OUTCOME_CONTENT_REJECTED if self._events.rejected else usage_pb2.OUTCOME_SUCCESS
        if self._failure.error_type == "gateway_error":
            return usage_pb2.OUTCOME_GATEWAY_ERROR
        if self._failure.error_type == "timeout":
            return usage_pb2.OUTCOME_TIMEOUT
        return usage_pb2.OUTCOME_PROVIDER_ERROR
