"""The simulated provider over HTTP."""

import asyncio
from types import ModuleType
from typing import Any

import orjson
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope

from development.simulator import anthropic_format, openai_format
from development.simulator.behaviour import BadRequestError, Behaviour, behaviour_for

# The platform's key, and those that stand for keys of organizations.
PLATFORM_KEY = "simulated"
OWN_KEY_PREFIX = "sk-own-"

_JSON = [("content-type", "application/json")]
_EVENTS = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_HTML = b"<!doctype html><html><body><h1>We will be back soon</h1></body></html>"
# Longer than any answer, so that one which ends early is seen to have been cut.
_NEVER_REACHED_BYTES = "100000000"
_FORMATS: dict[str, ModuleType] = {
    "/v1/chat/completions": openai_format,
    "/v1/messages": anthropic_format,
}


class Simulator:
    """The RSGI application. Keeps no state."""

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        if scope.path == "/health":
            protocol.response_bytes(200, _JSON, b'{"status":"ok"}')
            return
        instance, route = _split_path(scope.path)
        wire_format = _FORMATS.get(route)
        if wire_format is None or scope.method != "POST":
            protocol.response_bytes(404, _JSON, openai_format.error(404, "not_found", "no such route"))
            return
        if not _is_known_key(scope):
            protocol.response_bytes(401, _JSON, wire_format.error(401, "invalid_api_key", "this key is not known"))
            return
        await _answer(protocol, wire_format, instance)


async def _answer(protocol: HTTPProtocol, wire_format: Any, instance: str) -> None:
    try:
        behaviour = behaviour_for(orjson.loads(await protocol()), instance)
    except (orjson.JSONDecodeError, BadRequestError) as error:
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
    else:
        protocol.response_bytes(200, _JSON, wire_format.whole(behaviour))


def _fail(protocol: HTTPProtocol, wire_format: Any, behaviour: Behaviour, status: int) -> None:
    headers = list(_JSON)
    if retry_after := behaviour.directives.get("retry_after"):
        headers.append(("retry-after", retry_after))
    code = behaviour.directives.get("error_code", "simulated")
    protocol.response_bytes(status, headers, wire_format.error(status, code, "failing, as asked"))


def _break_format(protocol: HTTPProtocol, wire_format: Any, behaviour: Behaviour, body: str) -> None:
    if body == "html":
        protocol.response_bytes(200, [("content-type", "text/html")], _HTML)
        return
    whole: bytes = wire_format.whole(behaviour)
    protocol.response_bytes(200, _JSON, whole[: len(whole) // 2])


async def _stream(protocol: HTTPProtocol, wire_format: Any, behaviour: Behaviour) -> None:
    break_after = behaviour.optional_number("break_after")
    end_after = behaviour.optional_number("end_after")
    error_after = behaviour.optional_number("error_after")
    chunk_seconds = behaviour.number("chunk_ms") / 1000
    headers = _EVENTS if break_after is None else [*_EVENTS, ("content-length", _NEVER_REACHED_BYTES)]
    transport = protocol.response_stream(200, headers)
    try:
        await transport.send_bytes(wire_format.opening(behaviour))
        for count, event in enumerate(wire_format.tokens(behaviour)):
            if count in (break_after, end_after):
                return
            if count == error_after:
                await transport.send_bytes(
                    b"data: " + wire_format.error(500, "simulated", "failing, as asked") + b"\n\n"
                )
                return
            if chunk_seconds:
                await asyncio.sleep(chunk_seconds)
            await transport.send_bytes(event)
        await transport.send_bytes(wire_format.closing(behaviour))
    except ProtocolClosed:
        return


def _split_path(path: str) -> tuple[str, str]:
    """`/west/v1/messages` is the route `/v1/messages` of the instance `west`."""
    instance, separator, rest = path.partition("/v1/")
    return instance.strip("/"), separator + rest


def _is_known_key(scope: Scope) -> bool:
    bearer = str(scope.headers.get("authorization", "")).removeprefix("Bearer ")
    key = bearer or str(scope.headers.get("x-api-key", ""))
    return key == PLATFORM_KEY or key.startswith(OWN_KEY_PREFIX)


application = Simulator()
