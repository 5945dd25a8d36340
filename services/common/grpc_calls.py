"""Stands around every gRPC method: who may call, broken requests, errors, one log line and one metric per call."""

import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from services.common.authentication import Caller, KeyDirectory, Scope, hash_key, key_from_headers
from services.common.errors import DomainError, ForbiddenError, InvalidApiKeyError, InvalidRequestError
from services.common.grpc_status import status_of, status_of_bug
from services.common.metrics import GRPC_CALLS, GRPC_SECONDS
from tollgate.access.v1 import access_pb2

SERVICE_TOKEN_HEADER = "x-tollgate-service-token"  # noqa: S105 a header's name
REQUEST_ID_HEADER = "x-request-id"
# Set by Envoy on calls it transcoded, and stripped by it from all others.
TRANSCODED_HEADER = "x-envoy-original-path"
# Parses as no message, so Envoy cuts the connection where it would otherwise end the body as if it were complete.
UNPARSABLE = b"\xff"

log = logging.getLogger("tollgate.call")
_caller: ContextVar[Caller] = ContextVar("caller")

# The stubs of grpc describe synchronous handlers and an older context.
Handler = Any
Context = Any


def current_caller() -> Caller:
    """Who made the call that is being handled."""
    return _caller.get()


def headers_of(context: Context) -> dict[str, str]:
    """The call's metadata, text only."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def query_of(context: Context) -> dict[str, list[str]]:
    """The query of a call that came by REST; empty for others. For parameters whose names no message can list."""
    path = headers_of(context).get(TRANSCODED_HEADER, "")
    return parse_qs(urlsplit(path).query, keep_blank_values=True, errors="replace")


class Guard:
    """Lets in whom a method's access admits. Lives as long as its server."""

    def __init__(self, keys: KeyDirectory, service_token: str) -> None:
        self._keys = keys
        self._service_token = service_token.encode()

    async def admit(self, access: access_pb2.Access, headers: Mapping[str, str]) -> Caller:
        """The caller, or an error: 401 before anything else is looked at, then 403."""
        caller = self._service(headers) or await self._bearer(headers)
        caller.require(Scope(access.scope), writes=access.writes)
        return caller

    def _service(self, headers: Mapping[str, str]) -> Caller | None:
        token = headers.get(SERVICE_TOKEN_HEADER)
        if token is None:
            return None
        if not hmac.compare_digest(token.encode(), self._service_token):
            # Not "unauthenticated": a service that is set up wrongly must not blame its own caller's key.
            raise ForbiddenError("This is not the service token; set TOLLGATE_SERVICE_TOKEN alike everywhere.")
        return Caller(scope=Scope.SERVICE)

    async def _bearer(self, headers: Mapping[str, str]) -> Caller:
        caller = await self._keys.find(hash_key(key_from_headers(headers)))
        if caller is None:
            raise InvalidApiKeyError
        return caller


def access_of(method: MethodDescriptor) -> access_pb2.Access:
    """What the contract says about who may call. Raises ValueError where it says nothing."""
    access = method.GetOptions().Extensions[access_pb2.access]
    if access.scope == access_pb2.SCOPE_UNSPECIFIED:
        raise ValueError(f"{method.full_name} has no (tollgate.access.v1.access) option")
    return access


def guarded(method: MethodDescriptor, handler: Handler, guard: Guard) -> Handler:
    """The handler with everything around it. Bytes go in and out, so that a broken request is ours to refuse."""
    access = access_of(method)
    name = f"/{method.containing_service.full_name}/{method.name}"
    parse, serialize = handler.request_deserializer, handler.response_serializer

    async def unary(request_bytes: bytes, context: Context) -> bytes:
        call = _Call(name, context)
        try:
            request = await call.begin(access, guard, parse, request_bytes)
            response: bytes = serialize(await handler.unary_unary(request, context))
        except BaseException as error:
            await call.fail(error)
        call.end()
        return response

    async def streamed(request_bytes: bytes, context: Context) -> AsyncIterator[bytes]:
        call = _Call(name, context)
        try:
            request = await call.begin(access, guard, parse, request_bytes)
            async for message in handler.unary_stream(request, context):
                call.began = True
                yield serialize(message)
        except Exception as error:
            if call.began and call.is_transcoded:
                yield UNPARSABLE
            await call.fail(error)
        except BaseException as error:
            await call.fail(error)
        call.end()

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(streamed, None, None)
    return grpc.unary_unary_rpc_method_handler(unary, None, None)


class _Call:
    """One call, from its first byte to its log line."""

    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._context = context
        self._headers = headers_of(context)
        self._start = time.perf_counter()
        self.began = False

    @property
    def is_transcoded(self) -> bool:
        return TRANSCODED_HEADER in self._headers

    async def begin(
        self, access: access_pb2.Access, guard: Guard, parse: Callable[[bytes], Any], request_bytes: bytes
    ) -> object:
        """Authenticates, then parses: a stranger learns nothing about what is wrong with a request."""
        _caller.set(await guard.admit(access, self._headers))
        try:
            return parse(request_bytes)
        except (DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError("the request", "is not a valid message; is all text UTF-8?") from error

    async def fail(self, error: BaseException) -> NoReturn:
        """Ends the call with the status that the error stands for."""
        if isinstance(error, DomainError):
            await self._abort(status_of(error))
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            log.exception("bug", exc_info=error, extra={"method": self._name, "request_id": self._request_id})
            await self._abort(status_of_bug())
        self._finish("CANCELLED")
        raise error

    def end(self) -> None:
        self._finish("OK")

    @property
    def _request_id(self) -> str:
        return self._headers.get(REQUEST_ID_HEADER, "")

    async def _abort(self, status: Status) -> NoReturn:
        self._finish(Code.Name(status.code))
        await self._context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort returned")

    def _finish(self, code: str) -> None:
        seconds = time.perf_counter() - self._start
        GRPC_CALLS.labels(self._name, code).inc()
        GRPC_SECONDS.labels(self._name).observe(seconds)
        extra = {
            "method": self._name,
            "code": code,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": self._request_id,
        }
        log.info("call", extra=extra)
