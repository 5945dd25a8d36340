"""The connections to one provider: those that are open and idle are used again."""

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from urllib.parse import SplitResult

from services.router.routing.routing import Failure
from services.router.upstream.connection import Connection
from services.router.upstream.errors import UpstreamError
from services.router.upstream.proxy import Proxy

# Servers close what is idle after a minute or more. A call should not meet that.
_IDLE_SECONDS_MAX = 45.0
_IDLE_COUNT_MAX = 256
# A provider that thinks for minutes sends nothing, and some firewalls forget connections by then.
_PROBE_AFTER_SECONDS = 30

log = logging.getLogger("tollgate.upstream")


class Pool:
    """Lives as long as its worker."""

    def __init__(self, url: SplitResult, context: ssl.SSLContext, proxy: Proxy | None, connect_seconds: float) -> None:
        self._context = context if url.scheme == "https" else None
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._context is not None else 80)
        self._proxy = proxy
        self._connect_seconds = connect_seconds
        self._idle: deque[Connection] = deque()

    async def take(self) -> Connection:
        """A connection to send a call on. Raises UpstreamError when none can be made in time."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.idle_since < _IDLE_SECONDS_MAX:
                return connection
            connection.cut()
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._connect()
        except TimeoutError as error:
            raise UpstreamError(Failure("timeout"), "did not answer in time") from error
        except OSError as error:
            # What clients read does not tell where we call, and what is wrong there.
            log.warning("a provider cannot be reached", extra={"host": self._host, "why": str(error)})
            raise UpstreamError(Failure("connect_error"), "could not be reached") from error

    def give_back(self, connection: Connection) -> None:
        """To be used again, or cut when its answer has not come to an end."""
        if connection.release():
            self._idle.append(connection)
            oldest = self._idle[0]
            if len(self._idle) > _IDLE_COUNT_MAX or connection.idle_since - oldest.idle_since > _IDLE_SECONDS_MAX:
                self._idle.popleft()
                oldest.cut()

    def close(self) -> None:
        """Cuts what is idle."""
        while self._idle:
            self._idle.pop().cut()

    async def _connect(self) -> Connection:
        if self._proxy is None:
            return await self._open(self._host, self._port, self._context)
        connection = await self._open(self._proxy.host, self._proxy.port, None)
        if self._context is not None:
            try:
                await self._tunnel(connection, self._proxy, self._context)
            except BaseException:
                connection.cut()
                raise
        return connection

    async def _open(self, host: str, port: int, context: ssl.SSLContext | None) -> Connection:
        transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._forget), host, port, ssl=context, server_hostname=host if context else None
        )
        _keep_alive(transport.get_extra_info("socket"))
        return connection

    async def _tunnel(self, connection: Connection, proxy: Proxy, context: ssl.SSLContext) -> None:
        """Asks the proxy to connect us, and from there on speaks TLS with the provider through it."""
        name = f"[{self._host}]" if ":" in self._host else self._host
        target = f"{name}:{self._port}"
        lines = [
            f"CONNECT {target} HTTP/1.1",
            f"host: {target}",
            *(f"{name}: {it}" for name, it in proxy.headers.items()),
        ]
        await connection.send("\r\n".join([*lines, "", ""]).encode(), self._connect_seconds, self._connect_seconds)
        if connection.status != 200:
            raise OSError(f"the proxy {proxy.host}:{proxy.port} answered {connection.status}")
        await connection.secure(context, self._host)

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_SECONDS)
