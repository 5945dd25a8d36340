"""The simulated provider over HTTP."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import unquote

import orjson
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope

from development.simulator import (
    anthropic_format,
    embeddings_format,
    gemini_format,
    images_format,
    openai_format,
    responses_format,
)
from development.simulator.behaviour import BadRequestError, Behaviour

# The platform's key, and those that stand for keys of organizations.
PLATFORM_KEY = "simulated"
OWN_KEY_PREFIX = "sk-own-"

_JSON = [("content-type", "application/json")]
_EVENTS = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_HTML = b"<!doctype html><html><body><h1>We will be back soon</h1></body></html>"
# Longer than any answer, so that one which ends early is seen to have been cut.
_NEVER_REACHED_BYTES = "100000000"
# What was sent has to be on its way before the connection breaks, or it is lost with it.
_LEAVING_SECONDS = 0.02
# `/west/v1/messages` is the route `/messages` of the instance `west`; Azure's have the model in their path, and need a
# version in their query.
_PATH = re.compile(r"(?:/(?P<instance>[\w-]+))?/(?:v1|v1beta|(?P<azure>openai/deployments/[^/]+))(?P<route>/.+)")
_GEMINI = re.compile(r"/models/(?P<model>[^:]+):(?P<method>generateContent|streamGenerateContent)")


class WireFormat(Protocol):
    """What each format's module has."""

    def whole(self, behaviour: Behaviour) -> bytes: ...
    def opening(self, behaviour: Behaviour) -> bytes: ...
    def tokens(self, behaviour: Behaviour) -> Iterator[bytes]: ...
    def closing(self, behaviour: Behaviour) -> bytes: ...
    def error(self, status: int, code: str, message: str) -> bytes: ...
    def error_event(self, status: int, code: str, message: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: the format, how to read a request, and where the key is looked for."""

    wire_format: WireFormat
    asked: Callable[[Mapping[str, Any], str], Behaviour]
    key_headers: tuple[str, ...] = ("authorization",)
    # Without it a call is refused.
    needed_header: str | None = None


_ROUTES: Mapping[str, Route] = {
    "/chat/completions": Route(cast("WireFormat", openai_format), openai_format.asked),
    "/responses": Route(cast("WireFormat", responses_format), responses_format.asked),
    "/embeddings": Route(cast("WireFormat", embeddings_format), embeddings_format.asked),
    "/images/generations": Route(cast("WireFormat", images_format), images_format.asked),
    "/messages": Route(
        cast("WireFormat", anthropic_format), anthropic_format.asked, ("x-api-key",), "anthropic-version"
    ),
}


class Simulator:
    """The RSGI application. Keeps no state."""

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        if scope.path == "/health":
            protocol.response_bytes(200, _JSON, b'{"status":"ok"}')
            return
        match = _PATH.fullmatch(scope.path)
        route = _route_for(match, scope) if match is not None else None
        if match is None or route is None or scope.method != "POST":
            protocol.response_bytes(404, _JSON, openai_format.error(404, "not_found", "no such route"))
            return
        wire_format = route.wire_format
        if not any(_is_known_key(scope, header) for header in route.key_headers):
            protocol.response_bytes(401, _JSON, wire_format.error(401, "invalid_api_key", "this key is not known"))
        elif route.needed_header is not None and route.needed_header not in scope.headers:
            message = f"{route.needed_header}: header is required"
            protocol.response_bytes(400, _JSON, wire_format.error(400, "invalid_request", message))
        else:
            await _answer(protocol, route, match["instance"] or "")


def _route_for(match: re.Match[str], scope: Scope) -> Route | None:
    if match["azure"]:
        route = _ROUTES.get(match["route"])
        if route is None or "api-version=" not in scope.query_string:
            return None
        return Route(route.wire_format, route.asked, ("api-key",))
    gemini = _GEMINI.fullmatch(match["route"])
    if gemini is None:
        return _ROUTES.get(match["route"])
    streamed = gemini["method"] == "streamGenerateContent"
    if streamed and scope.query_string != "alt=sse":
        return None
    asked = partial(gemini_format.asked, model=unquote(gemini["model"]), streamed=streamed)
    return Route(cast("WireFormat", gemini_format), asked, ("x-goog-api-key",))


async def _answer(protocol: HTTPProtocol, route: Route, instance: str) -> None:
    wire_format = route.wire_format
    try:
        behaviour = route.asked(orjson.loads(await protocol()), instance)
    except (orjson.JSONDecodeError, BadRequestError, AttributeError, KeyError, TypeError) as error:
        protocol.response_bytes(400, _JSON, wire_format.error(400, "invalid_request", str(error)))
        return

    if delay_ms := behaviour.number("delay_ms"):
        await asyncio.sleep(delay_ms / 1000)
    if status := behaviour.number("status"):
        _fail(protocol, wire_format, behaviour, status)
    elif body := behaviour.directives.get("body"):
        _break_format(protocol, wire_format, behaviour, body)
    elif behaviour.streamed:
        await _stream(protocol, wire_format, behaviour)
    elif "break_after" in behaviour.directives:
        transport = protocol.response_stream(200, [*_JSON, ("content-length", _NEVER_REACHED_BYTES)])
        await transport.send_bytes(wire_format.whole(behaviour))
        await asyncio.sleep(_LEAVING_SECONDS)
    else:
        protocol.response_bytes(200, _JSON, wire_format.whole(behaviour))


def _fail(protocol: HTTPProtocol, wire_format: WireFormat, behaviour: Behaviour, status: int) -> None:
    headers = list(_JSON)
    if retry_after := behaviour.directives.get("retry_after"):
        headers.append(("retry-after", retry_after))
    code = behaviour.directives.get("error_code", "simulated")
    protocol.response_bytes(status, headers, wire_format.error(status, code, "failing, as asked"))


def _break_format(protocol: HTTPProtocol, wire_format: WireFormat, behaviour: Behaviour, body: str) -> None:
    if body == "html":
        protocol.response_bytes(200, [("content-type", "text/html")], _HTML)
        return
    whole = wire_format.whole(behaviour)
    protocol.response_bytes(200, _JSON, whole[: len(whole) // 2])


async def _stream(protocol: HTTPProtocol, wire_format: WireFormat, behaviour: Behaviour) -> None:
    break_after = behaviour.optional_number("break_after")
    end_after = behaviour.optional_number("end_after")
    error_after = behaviour.optional_number("error_after")
    chunk_seconds = behaviour.number("chunk_ms") / 1000
    headers = _EVENTS if break_after is None else [*_EVENTS, ("content-length", _NEVER_REACHED_BYTES)]
    transport = protocol.response_stream(200, headers)
    try:
        if opening := wire_format.opening(behaviour):
            await transport.send_bytes(opening)
        for count, event in enumerate(wire_format.tokens(behaviour)):
            if count in (break_after, end_after):
                await asyncio.sleep(_LEAVING_SECONDS)
                return
            if count == error_after:
                await transport.send_bytes(wire_format.error_event(500, "simulated", "failing, as asked"))
                return
            if chunk_seconds:
                await asyncio.sleep(chunk_seconds)
            await transport.send_bytes(event)
        await transport.send_bytes(wire_format.closing(behaviour))
    except ProtocolClosed:
        return


def _is_known_key(scope: Scope, header: str) -> bool:
    key = str(scope.headers.get(header, "")).removeprefix("Bearer ")
    return key == PLATFORM_KEY or key.startswith(OWN_KEY_PREFIX)


application = Simulator()
