"""Tries the planned attempts until one answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.router.chat_request import ChatRequest
from services.router.key_ring import KeyRing
from services.router.metrics import count_attempt
from services.router.records import CallRecord
from services.router.routing import Failure, Funding, PlannedAttempt, is_worth_another_try, is_worth_trying
from services.router.upstream import Upstream, UpstreamAnswer, UpstreamError
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse


class UpstreamStatusError(UpstreamError):
    """The provider answered, with a status that is not 2xx."""

    def __init__(self, answer: UpstreamAnswer, body: bytes) -> None:
        super().__init__(Failure("status", answer.status), f"answered {answer.status}")
        self.body = body
        self.content_type = answer.content_type
        self.retry_after_seconds = answer.retry_after_seconds


@dataclass(frozen=True, slots=True)
class WholeCompletion:
    """An answer that is there, whole."""

    planned: PlannedAttempt
    status: int
    content_type: str
    body: bytes
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """An answer that has begun to come. Whoever holds it closes it."""

    planned: PlannedAttempt
    upstream: Upstream
    answer: UpstreamAnswer
    first_chunk: bytes


class Attempts:
    """Sends calls to providers."""

    def __init__(self, upstreams: Mapping[str, Upstream], key_ring: KeyRing) -> None:
        self._upstreams = upstreams
        self._key_ring = key_ring

    async def first_answer(
        self, record: CallRecord, request: ChatRequest, plan: Sequence[PlannedAttempt], grant: ResolveKeyResponse
    ) -> WholeCompletion | OpenStream:
        """The first answer any attempt gives. Raises the last UpstreamError when none does.

        Nothing has been sent to the client yet, so trying again is safe as long as this has not returned.
        """
        last_error: UpstreamError | None = None
        for planned in plan:
            if not is_worth_trying(planned, last_error.failure if last_error is not None else None):
                continue
            record.begin_attempt(planned)
            try:
                return await self._attempt(record, request, planned, grant)
            except UpstreamError as error:
                record.end_attempt(error.failure.status, error.failure)
                count_attempt(planned.candidate.provider, error.failure.error_type)
                last_error = error
                if not is_worth_another_try(error.failure):
                    break
        assert last_error is not None, "a plan has at least one attempt worth trying"  # noqa: S101
        raise last_error

    async def _attempt(
        self, record: CallRecord, request: ChatRequest, planned: PlannedAttempt, grant: ResolveKeyResponse
    ) -> WholeCompletion | OpenStream:
        upstream = self._upstreams[planned.candidate.provider]
        body = request.body_for(planned.candidate.upstream_model)
        answer = await upstream.create_chat_completion(
            body, self._api_key(upstream, planned, grant), streamed=request.streamed
        )
        is_handed_on = False
        try:
            if not 200 <= answer.status < 300:
                raise UpstreamStatusError(answer, await answer.read_whole())
            if not request.streamed:
                return await self._whole(record, planned, answer)
            opened = await self._opened(planned, upstream, answer)
            is_handed_on = True
            return opened
        finally:
            if not is_handed_on:
                await answer.close()

    def _api_key(self, upstream: Upstream, planned: PlannedAttempt, grant: ResolveKeyResponse) -> str:
        if planned.funding is Funding.CREDITS:
            return upstream.provider.api_key
        return self._key_ring.own_keys(grant)[planned.candidate.provider]

    async def _whole(self, record: CallRecord, planned: PlannedAttempt, answer: UpstreamAnswer) -> WholeCompletion:
        body = await answer.read_whole()
        message = _json_object(body)
        if not isinstance(message.get("choices"), list):
            # A page of HTML, half a JSON, or an error that says 200.
            raise UpstreamError(Failure("bad_answer", answer.status), "answered with something that is no completion")
        record.end_attempt(answer.status)
        count_attempt(planned.candidate.provider, "")
        return WholeCompletion(planned, answer.status, answer.content_type, body, message)

    async def _opened(self, planned: PlannedAttempt, upstream: Upstream, answer: UpstreamAnswer) -> OpenStream:
        if not answer.content_type.startswith("text/event-stream"):
            raise UpstreamError(Failure("bad_answer", answer.status), "answered with something that is not a stream")
        first_chunk = await answer.read_chunk()
        if first_chunk is None:
            raise UpstreamError(Failure("broken_stream", answer.status), "sent an empty stream")
        return OpenStream(planned, upstream, answer, first_chunk)


def _json_object(body: bytes) -> Mapping[str, Any]:
    """The object; empty when it is none."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}
