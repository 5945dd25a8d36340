"""Processes of ours, and a client that talks to the router."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
from pyreqwest.client import Client
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30


@contextmanager
def running(
    module: str, environment: Mapping[str, str], health_url: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from its readiness to its end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        _wait_until_healthy(process, health_url, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS_MAX)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 our own address
            return
        time.sleep(0.05)
    raise AssertionError(f"{url} was not healthy in time:\n{log.read_text()}")


async def all_listen(process: subprocess.Popen[bytes], address: str, worker_count: int) -> None:
    """Returns when each worker does: one is enough for a process to be healthy."""
    port = int(address.rpartition(":")[2])
    async with asyncio.timeout(START_SECONDS_MAX):
        while len(_listeners(process.pid, port)) < worker_count:  # noqa: ASYNC110 there is no event
            await asyncio.sleep(0.02)


def _listeners(pid: int, port: int) -> list[int]:
    return [
        worker.pid
        for worker in psutil.Process(pid).children()
        for connection in worker.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["x-tollgate-request-id"]


@dataclass(frozen=True, slots=True)
class Router:
    """A running router as a client sees it."""

    process: subprocess.Popen[bytes]
    url: str
    grpc_address: str
    metrics_url: str
    log: Path
    client: Client

    async def chat(
        self, key: str, prompt: str = "Hello there", headers: Mapping[str, str] | None = None, **members: object
    ) -> Answer:
        """One chat completion, read to its end."""
        return await self.send("POST", "/v1/chat/completions", chat_body(prompt, **members), key, headers)

    async def send(
        self, method: str, path: str, body: bytes | None, key: str | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        response = await self._request(method, path, body, key, headers).build().send()
        return Answer(response.status, dict(response.headers), bytes(await response.bytes()))

    async def send_in_pieces(self, path: str, body: bytes, key: str) -> Answer:
        """Sends a body without saying how long it is."""

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        response = await self._request("POST", path, None, key, None).body_stream(pieces()).build().send()
        return Answer(response.status, dict(response.headers), bytes(await response.bytes()))

    @asynccontextmanager
    async def open_chat(
        self, key: str, prompt: str, headers: Mapping[str, str] | None = None, **members: object
    ) -> AsyncIterator[Response]:
        """A streamed chat completion; leaving the block early hangs up."""
        body = chat_body(prompt, stream=True, **members)
        request = self._request("POST", "/v1/chat/completions", body, key, headers)
        # Or the client would read on by itself, up to 64 KiB, before it shows the first event.
        async with request.streamed_read_buffer_limit(0).build_streamed() as response:
            yield response

    def _request(
        self, method: str, path: str, body: bytes | None, key: str | None, headers: Mapping[str, str] | None
    ) -> RequestBuilder:
        request = self.client.request(method, self.url + path)
        for name, value in (headers or {}).items():
            request = request.header(name, value)
        if key is not None:
            request = request.header("authorization", f"Bearer {key}")
        return request if body is None else request.body_bytes(body)


def chat_body(prompt: str, **members: object) -> bytes:
    return orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **members})
