"""Listens to what the ledger says of changes, so that the directory need not ask again and again."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc

from services.router.keys.directory import Directory

# After that a connection is taken for dead; the directory has long been asking for itself.
MESSAGE_SECONDS_MAX = 5.0
RECONNECT_SECONDS = 0.5

# Opens a stream of `WatchDirectoryResponse`.
OpenStream = Callable[[], Any]

log = logging.getLogger("tollgate.directory")


class DirectoryWatch:
    """Runs beside the directory, from `start` to `stop`."""

    def __init__(self, directory: Directory, open_stream: OpenStream) -> None:
        self._directory = directory
        self._open_stream = open_stream
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="directory watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._directory.begin_watch()
            stream = self._open_stream()
            try:
                await self._listen(stream)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                log.debug("nobody says what changes: %r", error)
            finally:
                stream.cancel()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, stream: Any) -> None:
        """Until the stream ends. Raises AioRpcError when it breaks, and TimeoutError when it falls silent."""
        async with asyncio.timeout(MESSAGE_SECONDS_MAX) as deadline:
            async for message in stream:
                self._directory.hear(frozenset(message.organization_ids))
                deadline.reschedule(asyncio.get_running_loop().time() + MESSAGE_SECONDS_MAX)
