"""The model routes over HTTP: an RSGI request in, an answer of the core out."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import orjson
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope

from services.common.errors import DomainError, InvalidRequestError, UnavailableError
from services.router.calls.admission import PROJECT_HEADER, Admission
from services.router.calls.calls import Calls, Headers, StreamedAnswer
from services.router.calls.records import Arrival
from services.router.error_bodies import BUG_MESSAGE, error_body, error_headers, status_of
from services.router.errors import BodyTooLargeError, ClientGoneError
from services.router.faces.addresses import client_address
from services.router.faces.face_limits import FaceLimits
from services.router.faces.model_list import ModelList
from services.router.formats.members import PROJECT_ID
from services.router.formats.registry import ENDPOINT_BY_PATH
from services.router.routing.health import Health
from services.router.routing.providers import Provider

if TYPE_CHECKING:
    from services.router.calls.call_traces import CallTraces

BODY_BYTES_MAX = 16 * 1024 * 1024
_MODELS = "/v1/models"
_METHODS: Mapping[str, str] = {**dict.fromkeys(ENDPOINT_BY_PATH, "POST"), _MODELS: "GET", "/health": "GET"}
_JSON = ("content-type", "application/json")

log = logging.getLogger("tollgate.http")


class HttpFace:
    """Speaks HTTP for one worker."""

    def __init__(
        self,
        calls: Calls,
        admission: Admission,
        models: ModelList,
        providers: Sequence[Provider],
        health: Health,
        *,
        limits: FaceLimits,
        traces: "CallTraces | None" = None,
    ) -> None:
        self._calls = calls
        self._admission = admission
        self._model_list = models
        self._providers = providers
        self._health_of_providers = health
        self._limits = limits
        self._traces = traces
        # Set on SIGTERM: running calls go on, but nobody should send new ones.
        self.is_draining = False
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running_count(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    def cut_off(self) -> None:
        """Ends what is still running. Every call makes its record all the same."""
        for task in self._running:
            task.cancel()

    async def wait_for_running(self) -> None:
        """Returns when every request has been answered."""
        if self._running:
            await asyncio.wait(self._running)

    async def handle(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answers one request, whatever happens."""
        arrival = Arrival(
            address=client_address(
                scope.client, scope.headers.get("x-forwarded-for", ""), self._limits.trusted_proxy_count
            )
        )
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._running.add(task)
        if self._traces is not None:
            self._traces.enter(cast("Mapping[str, str]", scope.headers))
        try:
            await self._route(scope, protocol, arrival)
        except DomainError as error:
            status = status_of(error)
            headers = error_headers(str(arrival.request_id), error)
            protocol.response_bytes(status, headers, _error_body(scope, status, error.reason.lower(), error.message))
        except ProtocolClosed:
            return
        except Exception:
            log.exception("bug", extra={"request_id": str(arrival.request_id)})
            headers = [*_error_headers(arrival), ("retry-after", "1")]
            protocol.response_bytes(503, headers, _error_body(scope, 503, "internal", BUG_MESSAGE))
        finally:
            self._running.discard(task)

    async def _route(self, scope: Scope, protocol: HTTPProtocol, arrival: Arrival) -> None:
        is_model = scope.path.startswith(_MODELS + "/")
        method = "GET" if is_model else _METHODS.get(scope.path)
        if method is None:
            body = error_body(404, "not_found", f"There is no {scope.path} here.")
            protocol.response_bytes(404, _error_headers(arrival), body)
        elif scope.method != method:
            body = _error_body(scope, 405, "method_not_allowed", f"{scope.path} takes {method} only.")
            protocol.response_bytes(405, [*_error_headers(arrival), ("allow", method)], body)
        elif scope.path == "/health":
            self._health(protocol)
        elif is_model or scope.path == _MODELS:
            await self._models(scope, protocol)
        elif len(self._running) > self._limits.calls_max:
            raise UnavailableError("Too many calls are running here; try again.")
        else:
            await self._call(scope, protocol, arrival)

    async def _call(self, scope: Scope, protocol: HTTPProtocol, arrival: Arrival) -> None:
        headers = dict(scope.headers.items())

        async def read_body() -> bytes:
            try:
                async with asyncio.timeout(self._limits.body_seconds_max):
                    return await _read_body(headers, protocol)
            except TimeoutError as error:
                seconds = self._limits.body_seconds_max
                raise InvalidRequestError("the body", f"did not arrive within {seconds} seconds") from error

        answer = await self._calls.answer_in_full(arrival, ENDPOINT_BY_PATH[scope.path], headers, read_body)
        if isinstance(answer, StreamedAnswer):
            await _stream(protocol, answer)
        else:
            protocol.response_bytes(answer.status, answer.headers, answer.body)

    async def _models(self, scope: Scope, protocol: HTTPProtocol) -> None:
        headers = dict(scope.headers.items())
        project_id = headers.get(PROJECT_HEADER, "")
        grant = await self._admission.grant(headers, project_id if PROJECT_ID.fullmatch(project_id) else "")
        name = unquote(scope.path.removeprefix(_MODELS).removeprefix("/"))
        body = self._model_list.one(grant, name) if name else self._model_list.listed(grant)
        protocol.response_bytes(200, [_JSON], orjson.dumps(body))

    def _health(self, protocol: HTTPProtocol) -> None:
        now = time.monotonic()
        health = self._health_of_providers
        providers = [
            {
                "name": each.name,
                "well": health.is_well(each.name, now),
                "failure_share": round(health.failure_share(each.name), 3),
                "failing_models": health.failing_models(each.name, now),
            }
            for each in self._providers
        ]
        status = 503 if self.is_draining else 200
        body = {"status": "draining" if self.is_draining else "ok", "providers": providers}
        protocol.response_bytes(status, [_JSON], orjson.dumps(body))


async def _stream(protocol: HTTPProtocol, answer: StreamedAnswer) -> None:
    try:
        transport = protocol.response_stream(answer.status, answer.headers)
    except ProtocolClosed:
        await answer.relay(_to_nobody)
        return

    async def send(piece: bytes) -> None:
        try:
            await transport.send_bytes(piece)
        except ProtocolClosed as error:
            raise ClientGoneError from error

    await answer.relay(send)


async def _to_nobody(_: bytes) -> None:
    raise ClientGoneError


async def _read_body(headers: Mapping[str, str], protocol: HTTPProtocol) -> bytes:
    """The whole body. Raises BodyTooLargeError, without reading it where its length is announced."""
    length = headers.get("content-length", "")
    if length.isdigit():
        if int(length) > BODY_BYTES_MAX:
            raise BodyTooLargeError("the body", BODY_BYTES_MAX)
        return await protocol()

    chunks: list[bytes] = []
    size = 0
    async for chunk in protocol:
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise BodyTooLargeError("the body", BODY_BYTES_MAX)
        chunks.append(chunk)
    return b"".join(chunks)


def _error_body(scope: Scope, status: int, code: str, message: str) -> bytes:
    """In the caller's own format."""
    endpoint = ENDPOINT_BY_PATH.get(scope.path)
    return endpoint.error_body(status, code, message) if endpoint else error_body(status, code, message)


def _error_headers(arrival: Arrival) -> Headers:
    return error_headers(str(arrival.request_id))
