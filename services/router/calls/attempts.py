"""Tries the planned attempts until one answers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.common.errors import DomainError
from services.router.calls.admission import AdmittedCall
from services.router.calls.records import CallRecord
from services.router.credit.covering import LeaseCover
from services.router.formats.endpoint import Answer, ModelRequest
from services.router.formats.event_stream import EventTooLongError
from services.router.formats.exchange import AnswerStream, Exchange, Target, UpstreamCall
from services.router.formats.registry import exchange_for
from services.router.keys.key_ring import KeyRing
from services.router.metrics import count_attempt
from services.router.routing.health import Health, Way
from services.router.routing.routing import (
    Candidate,
    Failure,
    Funding,
    PlannedAttempt,
    is_worth_another_try,
    is_worth_trying,
)
from services.router.upstream import Upstream, UpstreamAnswer, UpstreamError
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse


class UpstreamStatusError(UpstreamError):
    """The provider answered, with a status that is not 2xx."""

    def __init__(self, answer: UpstreamAnswer, error_body: bytes | None) -> None:
        super().__init__(Failure("status", answer.status), f"answered {answer.status}")
        # In the client's format and the provider's words; None when there were none.
        self.error_body = error_body
        self.retry_after_seconds = answer.retry_after_seconds


@dataclass(slots=True)
class WholeCompletion:
    """An answer that is there, whole."""

    planned: PlannedAttempt
    status: int
    content_type: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class OpenStream:
    """An answer that has begun to come. Whoever holds it closes it."""

    planned: PlannedAttempt
    upstream: Upstream
    answer: UpstreamAnswer
    events: AnswerStream
    # What the client may have of it already.
    first_piece: bytes


@dataclass(slots=True)
class _Try:
    """One attempt, ready to be sent."""

    planned: PlannedAttempt
    request: ModelRequest
    upstream: Upstream
    exchange: Exchange
    call: UpstreamCall
    api_key: str


class Attempts:
    """Sends calls to providers."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        key_ring: KeyRing,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._key_ring = key_ring
        self._health = health
        self._clock = clock

    async def first_answer(self, call: AdmittedCall, cover: LeaseCover) -> WholeCompletion | OpenStream:
        """The first answer any attempt gives. Raises the last UpstreamError when none does.

        Nothing has been sent to the client yet, so trying again is safe as long as this has not returned. Raises a
        DomainError, with no attempt made, when the request cannot be put into the format of any provider, or credit
        covers none of those that are left.
        """
        record = call.record
        last_error: UpstreamError | None = None
        refusal: DomainError | None = None
        refused_own_keys: set[Candidate] = set()
        for planned in call.plan:
            if not is_worth_trying(planned, refused_own_keys):
                continue
            try:
                attempt = self._prepared(call.request, planned, call.grant)
                await cover.take(planned)
            except DomainError as error:
                refusal = error
                continue
            record.begin_attempt(planned)
            start = self._clock()
            try:
                answered = await _send(record, attempt)
            except UpstreamError as error:
                record.end_attempt(error.failure.status, error.failure)
                self.note_failure(planned, error.failure, error.retry_after_seconds)
                last_error = error
                if not is_worth_another_try(error.failure):
                    break
                if planned.funding is Funding.OWN_KEY and error.failure.is_refused_key:
                    refused_own_keys.add(planned.candidate)
            else:
                now = self._clock()
                self._health.answered(Way.of(planned), now - start, now)
                return answered
        if last_error is not None:
            raise last_error
        assert refusal is not None, "a plan has at least one attempt worth trying"  # noqa: S101
        raise refusal

    def note_failure(self, planned: PlannedAttempt, failure: Failure, retry_after_seconds: int | None = None) -> None:
        """Remembers that an attempt failed, before it answered or in mid-answer."""
        count_attempt(planned.candidate.provider, failure.error_type)
        self._health.failed(Way.of(planned), failure, retry_after_seconds, self._clock())

    def _prepared(self, request: ModelRequest, planned: PlannedAttempt, grant: ResolveKeyResponse) -> _Try:
        upstream = self._upstreams[planned.candidate.provider]
        exchange = exchange_for(request.endpoint, upstream.provider.format)
        assert exchange is not None, "only providers that can answer are planned"  # noqa: S101
        target = Target(
            upstream_model=planned.candidate.upstream_model,
            output_tokens_max=planned.candidate.output_tokens_max,
            thinks_by_budget=upstream.provider.thinks_by_budget,
            own_key=planned.funding is Funding.OWN_KEY,
        )
        call = exchange.call(request, target)
        return _Try(planned, request, upstream, exchange, call, self._api_key(upstream, planned, grant))

    def _api_key(self, upstream: Upstream, planned: PlannedAttempt, grant: ResolveKeyResponse) -> str:
        if planned.funding is Funding.CREDITS:
            return upstream.provider.api_key
        return self._key_ring.own_keys(grant)[planned.candidate.provider]


async def _send(record: CallRecord, attempt: _Try) -> WholeCompletion | OpenStream:
    streamed = attempt.request.streamed
    answer = await attempt.upstream.send(attempt.call, attempt.api_key)
    is_handed_on = False
    try:
        if not 200 <= answer.status < 300:
            raise UpstreamStatusError(answer, attempt.exchange.error(await answer.read_whole()))
        if not streamed:
            return await _whole(record, attempt, answer)
        opened = await _opened(record, attempt, answer)
        is_handed_on = True
        return opened
    finally:
        if not is_handed_on:
            answer.close()


async def _whole(record: CallRecord, attempt: _Try, upstream_answer: UpstreamAnswer) -> WholeCompletion:
    body = await upstream_answer.read_whole()
    answer = attempt.exchange.answer(attempt.request, body, record.wire.start_time.seconds)
    if answer is None:
        # A page of HTML, half a JSON, or an error that says 200.
        raise UpstreamError(Failure("bad_answer", upstream_answer.status), "answered with something that is no answer")
    record.end_attempt(upstream_answer.status)
    count_attempt(attempt.planned.candidate.provider, "")
    return WholeCompletion(attempt.planned, upstream_answer.status, upstream_answer.content_type, answer)


async def _opened(record: CallRecord, attempt: _Try, answer: UpstreamAnswer) -> OpenStream:
    if not answer.content_type.startswith("text/event-stream"):
        raise UpstreamError(Failure("bad_answer", answer.status), "answered with something that is not a stream")
    first_chunk = await answer.read_chunk()
    if first_chunk is None:
        raise UpstreamError(Failure("broken_stream", answer.status), "sent an empty stream")
    events = attempt.exchange.open_stream(attempt.request, record.wire.start_time.seconds)
    try:
        first_piece = events.feed(first_chunk)
    except EventTooLongError as error:
        raise UpstreamError(Failure("bad_answer", answer.status), "sent an event without end") from error
    if events.failed:
        # An error in place of an answer, while another provider can still give one.
        raise UpstreamError(Failure("broken_stream", answer.status), "sent an error and no answer")
    return OpenStream(attempt.planned, attempt.upstream, answer, events, first_piece)
