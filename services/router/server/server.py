"""Listens for clients of the model routes."""

import asyncio
import time

from services.common.settings import SettingError
from services.router.server.connection import Connection, Handle

_BACKLOG = 2_048
# Each takes a file descriptor and some KiB. More than calls may run at once, as most are idle between theirs.
CONNECTIONS_MAX = 16_384
_LOOK_SECONDS = 1.0


class HttpServer:
    """Of one worker. Lives from `start` to `stop`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._connections: set[Connection] = set()
        # Of requests that are being answered.
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, address: str, *, reuse_port: bool) -> None:
        """Raises SettingError when the address is taken."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection, host.strip("[]"), int(port), backlog=_BACKLOG, reuse_port=reuse_port
            )
        except OSError as error:
            raise SettingError(f"cannot listen on {address}: {error.strerror}") from error
        self._look_at_the_clock()

    def drain(self) -> None:
        """Takes no more connections, ends those that are idle, and the others after the answers they wait for."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()

    async def wait_for_running(self) -> None:
        """Returns when every request has been answered."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def cut_off(self) -> None:
        """Ends what is still running. Every call makes its record all the same."""
        for task in list(self._tasks):
            task.cancel()

    async def stop(self, seconds_max: float) -> None:
        """Returns when everything is sent, and cuts off who does not take it in time."""
        self.drain()
        if self._connections:
            await asyncio.wait([connection.gone for connection in self._connections], timeout=seconds_max)
        for connection in list(self._connections):
            connection.cut()
        if self._timer is not None:
            self._timer.cancel()

    def _connection(self) -> asyncio.BaseProtocol:
        if len(self._connections) >= CONNECTIONS_MAX:
            return _Refused()
        return Connection(self._handle, self._connections, self._tasks)

    def _look_at_the_clock(self) -> None:
        """One timer for all connections: each call would set and stop several."""
        now = time.monotonic()
        for connection in [one for one in self._connections if one.deadline < now]:
            connection.expire()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_at_the_clock)


class _Refused(asyncio.BaseProtocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
