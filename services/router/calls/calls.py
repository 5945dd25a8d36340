"""The use case: a call is admitted, answered by a provider, and recorded. Knows neither HTTP servers nor gRPC."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from services.common.errors import DomainError
from services.router.calls.admission import Admission, AdmittedCall, IncomingCall, ReadBody
from services.router.calls.answers import explained, explaining_event
from services.router.calls.attempts import Attempts, OpenStream, UpstreamStatusError, WholeCompletion
from services.router.calls.completion import take_usage
from services.router.calls.idempotency import (
    ANSWER_BYTES_MAX,
    IDEMPOTENCY_HEADER,
    Claim,
    IdempotencyKeys,
    KeptAnswer,
    Name,
    fingerprint,
    require_key,
)
from services.router.calls.keeping import CacheEntry, Keeping
from services.router.calls.recording import Recorder
from services.router.calls.records import Arrival, CallRecord
from services.router.calls.relay import Send, StreamRelay
from services.router.calls.response_cache import CachedAnswer, ResponseCache, cache_name, wants_no_cache
from services.router.calls.stream_copy import StreamCopy
from services.router.credit.covering import LeaseCovers
from services.router.error_bodies import error_headers, status_of
from services.router.errors import ClientGoneError, ProviderFailedError
from services.router.formats.endpoint import Endpoint, ModelRequest
from services.router.formats.exchange import json_object
from services.router.limits.limits import Permit
from services.router.routing.routing import Funding, is_worth_another_try
from services.router.upstream import UpstreamError
from tollgate.ledger.v1 import usage_pb2

Headers = list[tuple[str, str]]
# Of an answer that was given before, under the same idempotency key.
REPLAYED = ("idempotency-replayed", "true")
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})


@dataclass(slots=True)
class WholeAnswer:
    """An answer to send in one piece. Its record is durable already."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """An answer to send as it comes. `relay` has to be run, even when the client is gone: it makes the record."""

    status: int
    headers: Headers
    relay: Callable[[Send], Awaitable[None]]


class Calls:
    """Answers model calls. Lives as long as its worker."""

    def __init__(
        self,
        admission: Admission,
        attempts: Attempts,
        recorder: Recorder,
        cache: ResponseCache,
        idempotency_keys: IdempotencyKeys,
        *,
        covers: LeaseCovers,
    ) -> None:
        self._admission = admission
        self._attempts = attempts
        self._recorder = recorder
        self._cache = cache
        self._idempotency_keys = idempotency_keys
        self._covers = covers

    async def answer(
        self,
        arrival: Arrival,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        read_body: ReadBody,
        *,
        streams: bool | None = None,
    ) -> WholeAnswer | StreamedAnswer:
        """One call of a model. Raises a DomainError when the call is refused or every provider failed.

        `streams` is what the caller can take: a body that asks for the other is refused. None takes either.
        """
        incoming = await self._admission.identify(arrival, endpoint, headers)
        return await self._answer(incoming, read_body, streams)

    async def answer_in_full(
        self, arrival: Arrival, endpoint: Endpoint, headers: Mapping[str, str], read_body: ReadBody
    ) -> WholeAnswer | StreamedAnswer:
        """Like `answer`, but a failure is an answer too, which explains itself as any other.

        Raises a DomainError only while nobody knows who calls.
        """
        incoming = await self._admission.identify(arrival, endpoint, headers)
        try:
            return await self._answer(incoming, read_body, None)
        except DomainError as error:
            return _failure(incoming, error)

    async def _answer(
        self, incoming: IncomingCall, read_body: ReadBody, streams: bool | None
    ) -> WholeAnswer | StreamedAnswer:
        try:
            request = await self._admission.read(incoming, read_body, streams)
            claim = await self._claim(incoming, request)
            if isinstance(claim, KeptAnswer):
                return _given_again(claim)
            try:
                return await self._admitted(incoming, request, claim)
            except BaseException:
                if claim is not None:
                    claim.give_up()
                raise
        except DomainError as error:
            if not incoming.record.is_final:
                await self._admission.refuse(incoming, error)
            raise

    async def _claim(self, incoming: IncomingCall, request: ModelRequest) -> Claim | KeptAnswer | None:
        key = incoming.headers.get(IDEMPOTENCY_HEADER)
        if key is None:
            return None
        name = Name(incoming.grant.api_key_id, require_key(key))
        this = fingerprint(request.endpoint.path, incoming.grant.project_id, request.body)
        return await self._idempotency_keys.claim(name, this)

    async def _admitted(
        self, incoming: IncomingCall, request: ModelRequest, claim: Claim | None
    ) -> WholeAnswer | StreamedAnswer:
        call = await self._admission.admit(incoming, request)
        keeping = Keeping(call.permit, claim, self._cache_entry(incoming, call))
        try:
            await call.record.keep_request(request.body, _media_type(incoming.headers))
            cached = keeping.cached(call.policy.cache_seconds)
            if cached is not None:
                return await self._from_cache(call, keeping, cached)
            return await self._from_provider(call, keeping)
        except BaseException:
            await call.permit.end(call.record.token_count)
            raise

    def _cache_entry(self, incoming: IncomingCall, call: AdmittedCall) -> CacheEntry | None:
        if call.policy.cache_seconds == 0 or wants_no_cache(incoming.headers):
            return None
        return CacheEntry(self._cache, cache_name(call.grant, call.request))

    async def _from_cache(
        self, call: AdmittedCall, keeping: Keeping, cached: CachedAnswer
    ) -> WholeAnswer | StreamedAnswer:
        record = call.record
        record.take_cached(cached.record)
        cover = self._covers.cover_of(call)
        await cover.open_for_cached(cached.record)
        try:
            await record.keep_response(cached.body + cached.ending, cached.content_type)
            self._recorder.begin(record.wire, credit_funded=False)
        except BaseException:
            cover.put_back()
            raise
        record.first_byte()
        await self._recorder.finish(record.end(usage_pb2.OUTCOME_SUCCESS, cached.status))
        headers = _headers(record, cached.content_type, call.permit)
        if call.request.streamed:
            body = cached.body + explaining_event(call.answer_format, record.wire) + cached.ending
        else:
            body = explained(cached.body, call.answer_format, record.wire)
        kept = KeptAnswer(cached.status, tuple(headers), body, streamed=call.request.streamed)
        # Nothing was asked of a provider, so no tokens count.
        await keeping.end(kept, None, tokens=0)
        return _answer_of(kept)

    async def _from_provider(self, call: AdmittedCall, keeping: Keeping) -> WholeAnswer | StreamedAnswer:
        record = call.record
        record.point_at(call.plan[0])
        credit_funded = any(planned.funding is Funding.CREDITS for planned in call.plan)
        cover = self._covers.cover_of(call)
        await cover.open(call.plan[0])
        try:
            self._recorder.begin(record.wire, credit_funded=credit_funded)
        except DomainError:
            cover.put_back()
            raise
        try:
            answered = await self._attempts.first_answer(call, cover)
            if isinstance(answered, OpenStream):
                return self._streamed(call, keeping, answered)
            return await self._whole(call, keeping, answered)
        except UpstreamError as error:
            return await self._failed(call, keeping, error)
        except DomainError as error:
            # Nobody was asked: no provider's format can say what the client's can.
            if not record.is_final:
                refused = record.end(usage_pb2.OUTCOME_REFUSED, status_of(error), error.reason.lower())
                await self._recorder.finish_failed(refused)
            raise
        except BaseException:
            # Cut off at the end of the drain time, or a bug. What was begun is ended all the same.
            if not record.is_final:
                await self._recorder.finish_failed(record.end(usage_pb2.OUTCOME_GATEWAY_ERROR, 503, "gateway_error"))
            raise

    async def _whole(self, call: AdmittedCall, keeping: Keeping, completion: WholeCompletion) -> WholeAnswer:
        record = call.record
        answer = completion.answer
        await take_usage(record, call.request, completion.planned.candidate, answer)
        record.first_byte()
        await record.keep_response(answer.body, completion.content_type)
        outcome = usage_pb2.OUTCOME_CONTENT_REJECTED if answer.rejected else usage_pb2.OUTCOME_SUCCESS
        await self._recorder.finish(record.end(outcome, completion.status))
        body = explained(answer.body, call.answer_format, record.wire)
        whole = WholeAnswer(completion.status, _headers(record, completion.content_type, call.permit), body)
        kept, cached = None, None
        if keeping.wants_copy:
            kept = _kept(whole)
            cached = CachedAnswer(completion.status, completion.content_type, answer.body, b"", record.wire)
        await keeping.end(kept, cached, tokens=record.token_count)
        return whole

    def _streamed(self, call: AdmittedCall, keeping: Keeping, stream: OpenStream) -> StreamedAnswer:
        record = call.record
        record.first_byte()
        copy = StreamCopy(ANSWER_BYTES_MAX) if keeping.wants_copy else None
        relay = StreamRelay(call, stream, self._recorder, note_failure=self._attempts.note_failure, copy=copy)
        status, content_type = stream.answer.status, stream.answer.content_type
        headers = _headers(record, content_type, call.permit)

        async def run(send: Send) -> None:
            try:
                await relay.run(send)
            finally:
                kept, cached = None, None
                if copy is not None and copy.body is not None and copy.ending is not None:
                    ending = explaining_event(call.answer_format, record.wire) + copy.ending
                    kept = KeptAnswer(status, tuple(headers), copy.body + ending, streamed=True)
                    cached = CachedAnswer(status, content_type, copy.body, copy.ending, record.wire)
                await keeping.end(kept, cached, tokens=record.token_count)

        return StreamedAnswer(status, headers, run)

    async def _failed(self, call: AdmittedCall, keeping: Keeping, error: UpstreamError) -> WholeAnswer:
        """A refusal of the request itself goes back as the provider worded it; anything else is a failed provider."""
        record = call.record
        if isinstance(error, UpstreamStatusError) and not is_worth_another_try(error.failure):
            return await self._refused_by_provider(call, keeping, error)
        outcome = usage_pb2.OUTCOME_PROVIDER_ERROR
        if error.failure.error_type == "timeout":
            outcome = usage_pb2.OUTCOME_TIMEOUT
        await self._recorder.finish_failed(record.end(outcome, 502, error.failure.error_type))
        provider = record.wire.provider
        raise ProviderFailedError(f"{provider} {error}", provider, error.retry_after_seconds) from error

    async def _refused_by_provider(
        self, call: AdmittedCall, keeping: Keeping, error: UpstreamStatusError
    ) -> WholeAnswer:
        record, status = call.record, error.failure.status
        body = error.error_body
        is_filtered = body is not None and _error_code(body) in _FILTER_CODES
        outcome = usage_pb2.OUTCOME_CONTENT_REJECTED if is_filtered else usage_pb2.OUTCOME_CLIENT_ERROR
        await record.keep_response(body or b"", "application/json")
        await self._recorder.finish(record.end(outcome, status, "content_filter" if is_filtered else "status"))
        if body is None:
            message = f"{record.wire.provider} {error}."
            body = call.request.endpoint.error_body(status, "provider_refused", message)
        body = explained(body, call.answer_format, record.wire)
        whole = WholeAnswer(status, _headers(record, "application/json", call.permit), body)
        await keeping.end(_kept(whole), None, tokens=record.token_count)
        return whole


def _kept(answer: WholeAnswer) -> KeptAnswer:
    return KeptAnswer(answer.status, tuple(answer.headers), answer.body, streamed=False)


def _given_again(kept: KeptAnswer) -> WholeAnswer | StreamedAnswer:
    """The first answer under an idempotency key, with the first call's request id: there is no second record."""
    return _answer_of(replace(kept, headers=(*kept.headers, REPLAYED)))


def _answer_of(kept: KeptAnswer) -> WholeAnswer | StreamedAnswer:
    if not kept.streamed:
        return WholeAnswer(kept.status, list(kept.headers), kept.body)

    async def run(send: Send) -> None:
        with suppress(ClientGoneError):
            await send(kept.body)

    return StreamedAnswer(kept.status, list(kept.headers), run)


def _failure(incoming: IncomingCall, error: DomainError) -> WholeAnswer:
    record, status = incoming.record, status_of(error)
    headers = error_headers(record.wire.request_id, error)
    if record.wire.attempts:
        headers += _what_happened(record)
    body = incoming.endpoint.error_body(status, error.reason.lower(), error.message)
    return WholeAnswer(status, headers, explained(body, incoming.answer_format, record.wire))


def _headers(record: CallRecord, content_type: str, permit: Permit) -> Headers:
    return [
        ("content-type", content_type),
        ("x-tollgate-request-id", record.wire.request_id),
        *_what_happened(record),
        *permit.headers,
    ]


def _what_happened(record: CallRecord) -> Headers:
    wire = record.wire
    return [
        ("x-tollgate-provider", wire.provider),
        ("x-tollgate-model", wire.model),
        ("x-tollgate-attempts", str(len(wire.attempts))),
        ("x-tollgate-duration-ms", str(record.arrival.elapsed_ms())),
        ("x-tollgate-cache", "hit" if wire.cache_hit else "miss"),
    ]


def _media_type(headers: Mapping[str, str]) -> str:
    """Of the body; over gRPC the header speaks of the call around it."""
    content_type = headers.get("content-type", "")
    return content_type if content_type and not content_type.startswith("application/grpc") else "application/json"


def _error_code(body: bytes) -> object:
    error = json_object(body).get("error")
    return error.get("code") if isinstance(error, dict) else None
