"""The network between router and ledger: a TCP proxy that can lose, hold and cut."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

_CHUNK_BYTES = 64 * 1024
_HELD_CHECK_SECONDS = 0.02


class Flow(Enum):
    """What happens to bytes in one direction."""

    PASS = auto()
    # They wait until they may pass.
    HOLD = auto()
    # They are taken and never arrive, as behind a firewall that forgot the connection.
    LOSE = auto()


@dataclass(eq=False)
class _Direction:
    """Bytes of one connection, one way."""

    link: "Link"
    is_to_ledger: bool
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    # A connection that lost bytes cannot be continued: what follows is lost too.
    has_lost: bool = False

    async def run(self) -> None:
        with suppress(OSError):
            while data := await self.reader.read(_CHUNK_BYTES):
                self.link.note(data, is_to_ledger=self.is_to_ledger)
                while self._flow is Flow.HOLD:  # noqa: ASYNC110 anybody may change it, at any time
                    await asyncio.sleep(_HELD_CHECK_SECONDS)
                self.has_lost = self.has_lost or self._flow is Flow.LOSE
                if not self.has_lost:
                    self.writer.write(data)
                    await self.writer.drain()
        self.writer.close()

    @property
    def _flow(self) -> Flow:
        return self.link.to_ledger if self.is_to_ledger else self.link.to_router


@dataclass(eq=False)
class Link:
    """Listens on a port of its own; lives as long as its system. Only the router is told of it."""

    address: str
    target: str
    to_ledger: Flow = Flow.PASS
    to_router: Flow = Flow.PASS
    _held_from: bytes | None = None
    _is_held: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> Self:
        host, _, port = self.address.rpartition(":")
        self._server = await asyncio.start_server(self._serve, host, int(port))
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.to_ledger = self.to_router = Flow.PASS
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold_from(self, data: bytes) -> asyncio.Event:
        """Holds what goes to the ledger from the piece on that has these bytes, and says when. They must be few."""
        self._held_from = data
        self._is_held.clear()
        return self._is_held

    def note(self, data: bytes, *, is_to_ledger: bool) -> None:
        if is_to_ledger and self._held_from is not None and self._held_from in data:
            self._held_from = None
            self.to_ledger = Flow.HOLD
            self._is_held.set()

    def cut(self) -> None:
        """Ends every connection with a reset."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._join(reader, writer)
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            ledger_reader, ledger_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return
        self._writers.add(ledger_writer)
        there = _Direction(self, True, reader, ledger_writer)
        back = _Direction(self, False, ledger_reader, writer)
        try:
            await asyncio.gather(there.run(), back.run())
        finally:
            ledger_writer.close()
            self._writers.discard(ledger_writer)
