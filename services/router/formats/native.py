"""A provider that speaks the client's own format: bytes go through as they are."""

from services.router.formats.endpoint import Answer, Endpoint, ModelRequest
from services.router.formats.event_stream import EventStream
from services.router.formats.exchange import AnswerStream, Target, UpstreamCall, json_object
from services.router.formats.unpriced import refuse_unpriced


class NativeExchange:
    """Answers of an endpoint's own format. Only the model's name, the project and the request for usage change."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def call(self, request: ModelRequest, target: Target) -> UpstreamCall:
        if not target.own_key:
            refuse_unpriced(request.members, self._endpoint.is_priced_tool)
        body = request.body_for(target.upstream_model, own_key=target.own_key)
        return UpstreamCall(
            path=self._endpoint.upstream_path, upstream_model=target.upstream_model, body=body, headers=request.headers
        )

    def answer(self, request: ModelRequest, body: bytes, created_seconds: int) -> Answer | None:
        return self._endpoint.answer(request, body, json_object(body))

    def open_stream(self, request: ModelRequest, created_seconds: int) -> AnswerStream:
        return EventStream(self._endpoint.stream_reader(request))

    def error(self, body: bytes) -> bytes | None:
        return body if json_object(body).get("error") is not None else None
