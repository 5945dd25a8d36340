"""The use case: a call is admitted, answered by a provider, and recorded. Knows neither HTTP servers nor gRPC."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from services.common.errors import DomainError
from services.router.admission import Admission, AdmittedCall, ReadBody
from services.router.attempts import Attempts, OpenStream, UpstreamStatusError, WholeCompletion
from services.router.completion import take_usage
from services.router.error_bodies import status_of
from services.router.errors import ProviderFailedError
from services.router.formats.endpoint import Endpoint
from services.router.formats.exchange import json_object
from services.router.recording import Recorder
from services.router.records import Arrival, CallRecord
from services.router.relay import Send, StreamRelay
from services.router.routing import Funding, is_worth_another_try
from services.router.upstream import UpstreamError
from tollgate.ledger.v1 import usage_pb2

Headers = list[tuple[str, str]]
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})


@dataclass(frozen=True, slots=True)
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

    def __init__(self, admission: Admission, attempts: Attempts, recorder: Recorder) -> None:
        self._admission = admission
        self._attempts = attempts
        self._recorder = recorder

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
        call = await self._admission.admit(arrival, endpoint, headers, read_body, streams)
        record = call.record
        record.point_at(call.plan[0])
        credit_funded = any(planned.funding is Funding.CREDITS for planned in call.plan)
        self._recorder.begin(record.wire, credit_funded=credit_funded)
        try:
            answered = await self._attempts.first_answer(record, call.request, call.plan, call.grant)
            if isinstance(answered, OpenStream):
                return self._streamed(call, answered)
            return await self._whole(call, answered)
        except UpstreamError as error:
            return await self._failed(call, error)
        except DomainError as error:
            # Nobody was asked: no provider's format can say what the client's can.
            refused = record.end(usage_pb2.OUTCOME_REFUSED, status_of(error), error.reason.lower())
            await self._recorder.finish_failed(refused)
            raise
        except BaseException:
            # Cut off at the end of the drain time, or a bug. What was begun is ended all the same.
            if not record.is_final:
                await self._recorder.finish_failed(record.end(usage_pb2.OUTCOME_GATEWAY_ERROR, 503, "gateway_error"))
            raise

    async def _whole(self, call: AdmittedCall, completion: WholeCompletion) -> WholeAnswer:
        record = call.record
        answer = completion.answer
        await take_usage(record, call.request, completion.planned.candidate, answer)
        record.first_byte()
        outcome = usage_pb2.OUTCOME_CONTENT_REJECTED if answer.rejected else usage_pb2.OUTCOME_SUCCESS
        await self._recorder.finish(record.end(outcome, completion.status))
        return WholeAnswer(completion.status, _headers(record, completion.content_type), answer.body)

    def _streamed(self, call: AdmittedCall, stream: OpenStream) -> StreamedAnswer:
        call.record.first_byte()
        relay = StreamRelay(call.record, call.request, stream, self._recorder)
        return StreamedAnswer(stream.answer.status, _headers(call.record, stream.answer.content_type), relay.run)

    async def _failed(self, call: AdmittedCall, error: UpstreamError) -> WholeAnswer:
        """A refusal of the request itself goes back as the provider worded it; anything else is a failed provider."""
        record = call.record
        if isinstance(error, UpstreamStatusError) and not is_worth_another_try(error.failure):
            return await self._refused_by_provider(call, error)
        outcome = usage_pb2.OUTCOME_PROVIDER_ERROR
        if error.failure.error_type == "timeout":
            outcome = usage_pb2.OUTCOME_TIMEOUT
        await self._recorder.finish_failed(record.end(outcome, 502, error.failure.error_type))
        provider = record.wire.provider
        retry_after_seconds = error.retry_after_seconds if isinstance(error, UpstreamStatusError) else None
        raise ProviderFailedError(f"{provider} {error}", provider, retry_after_seconds) from error

    async def _refused_by_provider(self, call: AdmittedCall, error: UpstreamStatusError) -> WholeAnswer:
        record, status = call.record, error.failure.status
        body = error.error_body
        is_filtered = body is not None and _error_code(body) in _FILTER_CODES
        outcome = usage_pb2.OUTCOME_CONTENT_REJECTED if is_filtered else usage_pb2.OUTCOME_CLIENT_ERROR
        await self._recorder.finish(record.end(outcome, status, "content_filter" if is_filtered else "status"))
        if body is None:
            message = f"{record.wire.provider} {error}."
            body = call.request.endpoint.error_body(status, "provider_refused", message)
        return WholeAnswer(status, _headers(record, "application/json"), body)


def _headers(record: CallRecord, content_type: str) -> Headers:
    wire = record.wire
    return [
        ("content-type", content_type),
        ("x-tollgate-request-id", wire.request_id),
        ("x-tollgate-provider", wire.provider),
        ("x-tollgate-model", wire.model),
        ("x-tollgate-attempts", str(len(wire.attempts))),
        ("x-tollgate-duration-ms", str(record.arrival.elapsed_ms())),
        ("x-tollgate-cache", "miss"),
    ]


def _error_code(body: bytes) -> object:
    error = json_object(body).get("error")
    return error.get("code") if isinstance(error, dict) else None
