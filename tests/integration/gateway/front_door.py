"""A real Envoy with our configuration, and a client of it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import orjson
from pyreqwest.client import ClientBuilder

from development.addresses import Addresses
from tests.integration.gateway.upstreams import READER_KEY, Activity

START_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.text)


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Envoy, as a client sees it."""

    addresses: Addresses
    activity: Activity

    async def ask(
        self, method: str, path: str, *, key: str | None = READER_KEY, body: bytes | None = None, **headers: str
    ) -> Answer:
        async with ClientBuilder().build() as client:
            request = client.request(method, f"http://{self.addresses.front_door}{path}")
            if key is not None:
                request = request.header("authorization", f"Bearer {key}")
            for name, value in headers.items():
                request = request.header(name.replace("_", "-"), value)
            if body is not None:
                request = request.body_bytes(body)
            response = await request.build().send()
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, found, await response.text())

    async def get(self, path: str, *, key: str | None = READER_KEY, **headers: str) -> Answer:
        return await self.ask("GET", path, key=key, body=None, **headers)

    async def send_raw(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of what comes back until the connection ends."""
        host, _, port = self.addresses.front_door.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return head, body

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.addresses.front_door)


@asynccontextmanager
async def envoy(configuration: str, addresses: Addresses, directory: Path) -> AsyncIterator[None]:
    """Runs Envoy until the block ends. Fails with its last words when it does not start."""
    path, log = directory / "envoy.yaml", directory / "envoy.log"
    path.write_text(configuration)
    binary = Path(sys.executable).parent / "envoy"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            binary, "--disable-hot-restart", "--log-level", "warning", "-c", path, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _is_listening(addresses.front_door):
                assert process.returncode is None, log.read_text()[-2000:]
                await asyncio.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True
