"""One provider as it is called."""

import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from services.common.settings import SettingError
from services.router.formats.exchange import UpstreamCall
from services.router.routing.providers import Provider
from services.router.routing.routing import Failure
from services.router.upstream.answer import UpstreamAnswer
from services.router.upstream.errors import UpstreamError
from services.router.upstream.pool import Pool
from services.router.upstream.proxy import proxy_for

_HEADERS = {
    "user-agent": "tollgate",
    "accept": "*/*",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


def client_context() -> ssl.SSLContext:
    """For all providers: it holds the certificates of every authority, which is a megabyte."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Upstream:
    """One provider's connections. Lives as long as its worker."""

    def __init__(self, provider: Provider, context: ssl.SSLContext) -> None:
        """The context says whose certificates are believed.

        Raises SettingError for a URL or headers that cannot be sent, and a proxy that cannot be used.
        """
        self.provider = provider
        url = urlsplit(provider.base_url)
        proxy = proxy_for(url)
        self._pool = Pool(url, context, proxy, provider.connect_timeout_seconds)
        self._headers = {**_HEADERS, **{name.lower(): value for name, value in provider.headers.items()}}
        self._headers["host"] = url.netloc.rpartition("@")[2]
        # What of a URL is said to the server: all of it to a proxy, else what comes after the host.
        self._target_start = len(f"{url.scheme}://{url.netloc}")
        if proxy is not None and url.scheme == "http":
            self._target_start = 0
            self._headers |= proxy.headers
        _require_sendable(provider, [provider.base_url, provider.query, provider.api_key, *self._headers.values()])
        self._lines = _lines(self._headers)
        # By path and model, of which there are only those of the providers file.
        self._request_lines: dict[tuple[str, str], str] = {}

    async def send(self, call: UpstreamCall, api_key: str) -> UpstreamAnswer:
        """Sends a call and waits for the head of its answer, whatever its status. Raises UpstreamError."""
        request = self._head(call, api_key) + call.body
        connection = await self._pool.take()
        try:
            await connection.send(request, self.provider.idle_timeout_seconds, self.provider.total_timeout_seconds)
            return UpstreamAnswer(self._pool, connection)
        except BaseException:
            connection.cut()
            raise

    def close(self) -> None:
        """Cuts what is not in use."""
        self._pool.close()

    def _head(self, call: UpstreamCall, api_key: str) -> bytes:
        if not _is_sendable(api_key) or not all(map(_is_sendable, call.headers.values())):
            raise UpstreamError(Failure("refused_key", 401), "cannot be sent such a key or header")
        credentials = self.provider.credentials
        line = self._request_line(call.path, call.upstream_model)
        lines = _lines({**self._headers, **call.headers}) if call.headers else self._lines
        return (
            f"{line}{lines}{credentials.header}: {credentials.prefix}{api_key}\r\n"
            f"content-length: {len(call.body)}\r\n\r\n"
        ).encode("ascii")

    def _request_line(self, path: str, model: str) -> str:
        line = self._request_lines.get((path, model))
        if line is None:
            target = self.provider.url_for(path, model)[self._target_start :]
            line = self._request_lines[path, model] = f"POST {target} HTTP/1.1\r\n"
        return line


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _is_sendable(value: str) -> bool:
    """Whether it stays one line, read alike everywhere."""
    return value.isascii() and value.isprintable()


def _require_sendable(provider: Provider, values: list[str]) -> None:
    if not all(map(_is_sendable, values)):
        raise SettingError(f"provider {provider.name}: URL, query, headers and key must be printable ASCII")
