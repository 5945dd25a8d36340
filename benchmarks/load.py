"""Calls to a gateway, or to whatever stands in its place: as fast as they go, or at a steady rate."""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence

import orjson
from pyreqwest.client import Client
from pyreqwest.request import RequestBuilder


class Caller:
    """One client with one key."""

    def __init__(self, client: Client, url: str, key: str, headers: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}

    async def plain(self) -> float:
        """One call; how long it took, in seconds."""
        start = time.perf_counter()
        response = await self._request(_body("What does a toll gate do, and why?")).build().send()
        await response.bytes()
        assert response.status == 200, await response.text()
        return time.perf_counter() - start

    async def stream(self, tokens: int, chunk_milliseconds: int) -> None:
        """One stream, to its end marker; each chunk is a token, but for the first and the last."""
        body = _body(f"simulate:tokens={tokens} simulate:chunk_ms={chunk_milliseconds}", stream=True)
        last = b""
        async with self._request(body).streamed_read_buffer_limit(0).build_streamed() as response:
            while (chunk := await response.body_reader.read_chunk()) is not None:
                last = bytes(chunk)
        assert last.rstrip().endswith(b"[DONE]"), last

    def _request(self, body: bytes) -> RequestBuilder:
        return self._client.post(self._url).headers(self._headers).body_bytes(body)


def _body(prompt: str, **members: object) -> bytes:
    return orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **members})


async def saturate(callers: Sequence[Caller], count: int, concurrency: int) -> None:
    """Makes `count` plain calls, always `concurrency` at a time, the callers in turn."""
    turns = iter([callers[number % len(callers)] for number in range(count)])

    async def work() -> None:
        for caller in turns:
            await caller.plain()

    async with asyncio.TaskGroup() as running:
        for _ in range(concurrency):
            running.create_task(work())


async def stream_together(caller: Caller, count: int, tokens: int, chunk_milliseconds: int) -> None:
    """So many streams at once, to their ends."""
    async with asyncio.TaskGroup() as running:
        for _ in range(count):
            running.create_task(caller.stream(tokens, chunk_milliseconds))


async def paced(callers: Sequence[Caller], calls_per_second: int, seconds: int) -> list[float]:
    """Makes plain calls at a steady rate, whether answered or not, the callers in turn; how long each took."""
    start = time.perf_counter()
    async with asyncio.TaskGroup() as running:
        tasks = []
        for number in range(calls_per_second * seconds):
            await asyncio.sleep(max(0.0, start + number / calls_per_second - time.perf_counter()))
            tasks.append(running.create_task(callers[number % len(callers)].plain()))
    return [task.result() for task in tasks]


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
