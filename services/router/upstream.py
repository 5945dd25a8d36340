"""Speaks HTTP to one provider."""

import asyncio
import ipaddress
import math
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar, cast
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError, RequestError, RequestTimeoutError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from services.router.formats.exchange import UpstreamCall
from services.router.providers import Provider
from services.router.routing import Failure

# Nothing a chat completion answers is larger; a provider that sends more is broken.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
_RETRY_AFTER_SECONDS_MAX = 3600
_Result = TypeVar("_Result")


class UpstreamError(Exception):
    """The provider could not be reached, did not answer in time, or broke off."""

    # When the provider wants to be asked again, where it said so.
    retry_after_seconds: int | None = None

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class UpstreamAnswer:
    """An answer whose head is there and whose body is still coming. Has to be closed."""

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self._request = request
        self._response = response
        self.status = response.status
        self.content_type = response.get_header("content-type") or ""

    @property
    def retry_after_seconds(self) -> int | None:
        """When the provider wants to be asked again; None when it does not say."""
        return _seconds_until(self._response.get_header("retry-after") or "")

    async def read_chunk(self) -> bytes | None:
        """The next bytes as they come; None at the end. Raises UpstreamError."""
        try:
            chunk = await _cancellable(self._response.body_reader.read_chunk())
        except RequestError as error:
            raise _broken_off(error, self.status) from error
        return None if chunk is None else bytes(chunk)

    async def read_whole(self) -> bytes:
        """The whole body. Raises UpstreamError."""
        if self._announced_bytes() <= ANSWER_BYTES_MAX:
            try:
                return bytes(await _cancellable(self._response.bytes()))
            except RequestError as error:
                raise _broken_off(error, self.status) from error

        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read_chunk():
            chunks.append(chunk)
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise UpstreamError(Failure("bad_answer", self.status), f"sent more than {ANSWER_BYTES_MAX} bytes")
        return b"".join(chunks)

    def _announced_bytes(self) -> float:
        length = self._response.get_header("content-length") or ""
        return int(length) if length.isascii() and length.isdigit() else float("inf")

    async def close(self) -> None:
        """Gives the connection back, or cuts it when the body is not read to its end."""
        await self._request.__aexit__(None, None, None)


class Upstream:
    """One provider's connections. Lives as long as its worker."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._client = _client_for(provider)

    async def send(self, call: UpstreamCall, api_key: str, *, streamed: bool) -> UpstreamAnswer:
        """Sends a call and waits for the head of its answer, whatever its status. Raises UpstreamError."""
        credentials = self.provider.credentials
        builder = (
            self._client.post(self.provider.url_for(call.path, call.upstream_model))
            .header(credentials.header, f"{credentials.prefix}{api_key}", is_sensitive=True)
            .body_bytes(call.body)
        )
        for name, value in call.headers.items():
            builder = builder.header(name, value)
        if streamed:
            # Or the first bytes would wait for more of them, up to the limit.
            builder = builder.streamed_read_buffer_limit(0)
        request = builder.build_streamed()
        try:
            response = await _cancellable(request.__aenter__())
        except RequestError as error:
            raise _not_answered(error) from error
        return UpstreamAnswer(request, response)

    async def close(self) -> None:
        await self._client.close()


async def _cancellable(waiting: Awaitable[_Result]) -> _Result:
    """Waits for the HTTP client, which forgets a cancellation that comes together with its result: a timeout's, too."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    before = task.cancelling()
    try:
        return await waiting
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def _client_for(provider: Provider) -> Client:
    builder = (
        ClientBuilder()
        .follow_redirects(False)
        .referer(False)
        .user_agent("tollgate")
        .http1_lower_case_headers()
        .default_headers({"content-type": "application/json", "accept-encoding": "identity", **provider.headers})
        .connect_timeout(timedelta(seconds=provider.connect_timeout_seconds))
        .read_timeout(timedelta(seconds=provider.idle_timeout_seconds))
        .timeout(timedelta(seconds=provider.total_timeout_seconds))
    )
    if _is_local(provider.base_url):
        # A proxy of the environment cannot mean this machine.
        builder = builder.no_proxy()
    return builder.build()


def _seconds_until(retry_after: str) -> int | None:
    """Both forms of the header: seconds, and a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after), _RETRY_AFTER_SECONDS_MAX)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    # A date whose zone is not told is meant in UTC, as the format has it.
    seconds = math.ceil((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return min(max(seconds, 0), _RETRY_AFTER_SECONDS_MAX)


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _not_answered(error: RequestError) -> UpstreamError:
    if isinstance(error, (RequestTimeoutError, ConnectTimeoutError)):
        return UpstreamError(Failure("timeout"), "did not answer in time")
    if isinstance(error, ConnectError):
        return UpstreamError(Failure("connect_error"), "could not be reached")
    return UpstreamError(Failure("broken_stream"), "broke off before it answered")


def _broken_off(error: RequestError, status: int) -> UpstreamError:
    if isinstance(error, RequestTimeoutError):
        return UpstreamError(Failure("timeout", status), "stopped in mid-answer")
    return UpstreamError(Failure("broken_stream", status), "broke off in mid-answer")
