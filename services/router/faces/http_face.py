"""The model routes over HTTP: a request in, an answer of the core out."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from services.common.errors import DomainError, InvalidRequestError
from services.router.calls.admission import PROJECT_HEADER, Admission
from services.router.calls.calls import Calls, Headers, StreamedAnswer
from services.router.calls.records import Arrival
from services.router.error_bodies import BUG_MESSAGE, error_body, error_headers, status_of
from services.router.errors import ClientGoneError
from services.router.faces.addresses import client_address
from services.router.faces.face_limits import FaceLimits
from services.router.faces.model_list import ModelList
from services.router.faces.running_calls import RunningCalls
from services.router.formats.members import PROJECT_ID
from services.router.formats.registry import ENDPOINT_BY_PATH
from services.router.routing.health import Health
from services.router.routing.providers import Provider
from services.router.server import Request

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
        running: RunningCalls,
        limits: FaceLimits,
        traces: "CallTraces | None" = None,
    ) -> None:
        self._calls = calls
        self._admission = admission
        self._model_list = models
        self._providers = providers
        self._health_of_providers = health
        self._limits = limits
        self._running = running
        self._traces = traces
        # Set on SIGTERM: running calls go on, but nobody should send new ones.
        self.is_draining = False

    async def handle(self, request: Request) -> None:
        """Answers one request, whatever happens. Raises ClientGoneError when nobody is there to be answered."""
        forwarded_for = request.headers.get("x-forwarded-for", "")
        arrival = Arrival(address=client_address(request.client, forwarded_for, self._limits.trusted_proxy_count))
        if self._traces is not None:
            self._traces.enter(request.headers)
        try:
            await self._route(request, arrival)
        except DomainError as error:
            status = status_of(error)
            headers = error_headers(arrival.request_id, error)
            request.respond(status, headers, _error_body(request, status, error.reason.lower(), error.message))
        except ClientGoneError:
            raise
        except Exception:
            log.exception("bug", extra={"request_id": arrival.request_id})
            headers = [*_error_headers(arrival), ("retry-after", "1")]
            request.respond(503, headers, _error_body(request, 503, "internal", BUG_MESSAGE))

    async def _route(self, request: Request, arrival: Arrival) -> None:
        path = request.path
        is_model = path.startswith(_MODELS + "/")
        method = "GET" if is_model else _METHODS.get(path)
        if method is None:
            request.respond(404, _error_headers(arrival), error_body(404, "not_found", f"There is no {path} here."))
        elif request.method != method:
            body = _error_body(request, 405, "method_not_allowed", f"{path} takes {method} only.")
            request.respond(405, [*_error_headers(arrival), ("allow", method)], body)
        elif path == "/health":
            self._health(request)
        elif is_model or path == _MODELS:
            await self._models(request)
        else:
            await self._call(request, arrival)

    async def _call(self, request: Request, arrival: Arrival) -> None:
        async def read_body() -> bytes:
            if request.is_complete:
                return await request.body(BODY_BYTES_MAX, hold)
            try:
                async with asyncio.timeout(self._limits.body_seconds_max):
                    return await request.body(BODY_BYTES_MAX, hold)
            except TimeoutError as error:
                seconds = self._limits.body_seconds_max
                raise InvalidRequestError("the body", f"did not arrive within {seconds} seconds") from error

        endpoint = ENDPOINT_BY_PATH[request.path]
        with self._running.one_more() as hold:
            answer = await self._calls.answer_in_full(arrival, endpoint, request.headers, read_body)
            if isinstance(answer, StreamedAnswer):
                await _stream(request, answer)
            else:
                request.respond(answer.status, answer.headers, answer.body)

    async def _models(self, request: Request) -> None:
        project_id = request.headers.get(PROJECT_HEADER, "")
        grant = await self._admission.grant(request.headers, project_id if PROJECT_ID.fullmatch(project_id) else "")
        name = unquote(request.path.removeprefix(_MODELS).removeprefix("/"))
        body = self._model_list.one(grant, name) if name else self._model_list.listed(grant)
        request.respond(200, [_JSON], orjson.dumps(body))

    def _health(self, request: Request) -> None:
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
        request.respond(status, [_JSON], orjson.dumps(body))


async def _stream(request: Request, answer: StreamedAnswer) -> None:
    """Raises ClientGoneError."""
    try:
        request.begin_stream(answer.status, answer.headers)
    except ClientGoneError:
        await answer.relay(_to_nobody)
        raise
    await answer.relay(request.send)
    request.end_stream()


async def _to_nobody(_: bytes) -> None:
    raise ClientGoneError


def _error_body(request: Request, status: int, code: str, message: str) -> bytes:
    """In the caller's own format."""
    endpoint = ENDPOINT_BY_PATH.get(request.path)
    return endpoint.error_body(status, code, message) if endpoint else error_body(status, code, message)


def _error_headers(arrival: Arrival) -> Headers:
    return error_headers(arrival.request_id)
