"""Clients that go on calling whatever happens, and remember what they saw."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Self

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from tests.faults.books_model import Call, Ending, Model, a_call

CLIENT_COUNT = 6
CALL_TIMEOUT_SECONDS = 30.0
# Between two calls of one client, so that there is a machine left for the services.
PAUSE_SECONDS_MAX = 0.05
PAUSE_AFTER_FAILURE_SECONDS = 0.1
TAG_HEADER = "x-tollgate-metadata-fault-call"
TAG_KEY = "fault-call"
_PADDING_HEADER = "x-tollgate-metadata-padding"
_PADDING_LENGTH_MAX = 256
_END_OF_STREAM = "data: [DONE]"


class NotBackError(AssertionError):
    """Calls do not succeed again, although everything is up."""


class Load:
    """The clients of one organization. Lives for one run."""

    def __init__(self, urls: list[str], api_key: str, model: Model, name: str, dice: random.Random) -> None:
        # Where calls go, at random. More may be added while it runs.
        self.urls = urls
        # How large each record is beyond its least, in pieces of 256 bytes; at most 14.
        self.padding_count = 0
        # The share of calls whose provider is to fail.
        self.trouble_share = 0.05
        self._api_key = api_key
        self._model = model
        self._name = name
        self._dice = dice
        self._call_count = 0
        self._is_stopping = False
        self._clients: list[asyncio.Task[None]] = []
        self._exits = AsyncExitStack()
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        builder = ClientBuilder().timeout(timedelta(seconds=CALL_TIMEOUT_SECONDS))
        self._client = await self._exits.enter_async_context(builder.build())
        self._clients = [asyncio.create_task(self._call_for_ever()) for _ in range(CLIENT_COUNT)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Returns when every call that runs has ended."""
        self._is_stopping = True
        await asyncio.gather(*self._clients)
        await self._exits.aclose()

    @property
    def finished_count(self) -> int:
        return len(self._model.finished)

    async def finish_more(self, count: int, seconds_max: float = 40.0) -> None:
        """Returns when so many more calls have been seen to finish. Raises NotBackError when they do not."""
        target = self.finished_count + count
        deadline = time.monotonic() + seconds_max
        while self.finished_count < target:
            if time.monotonic() > deadline:
                raise NotBackError(f"{target - self.finished_count} of {count} calls did not finish in {seconds_max} s")
            self._raise_what_clients_raised()
            await asyncio.sleep(0.02)

    def new_call(self, *, delay_ms: int = 0, trouble_share: float = 0.0) -> Call:
        """A call that is not made yet."""
        self._call_count += 1
        tag = f"{self._name}-{self._call_count:06}"
        return a_call(tag, self._dice, trouble_share=trouble_share, delay_ms=delay_ms)

    async def make(self, call: Call) -> Ending:
        """Makes one call, and notes how it ended for its client."""
        self._model.begin(call)
        request_id = await self._finished_id(call)
        ending = Ending.UNFINISHED if request_id is None else Ending.FINISHED
        self._model.end(call, ending, request_id or "")
        return ending

    async def _call_for_ever(self) -> None:
        while not self._is_stopping:
            delay_ms = self._dice.choice((0, 0, 0, 20, 150))
            ending = await self.make(self.new_call(delay_ms=delay_ms, trouble_share=self.trouble_share))
            pause = PAUSE_AFTER_FAILURE_SECONDS if ending is Ending.UNFINISHED else PAUSE_SECONDS_MAX
            await asyncio.sleep(self._dice.random() * pause)

    async def _finished_id(self, call: Call) -> str | None:
        """The request id, if a whole answer came."""
        assert self._client is not None
        body = {"model": call.model, "messages": [{"role": "user", "content": call.prompt}], "stream": call.streamed}
        request = self._client.post(self._dice.choice(self.urls) + "/v1/chat/completions").body_json(body)
        headers = {"authorization": f"Bearer {self._api_key}", "x-tollgate-project": "web", TAG_HEADER: call.tag}
        for number in range(self.padding_count):
            headers[f"{_PADDING_HEADER}-{number}"] = "x" * _PADDING_LENGTH_MAX
        for name, value in headers.items():
            request = request.header(name, value)
        try:
            response = await request.build().send()
            text = await response.text()
        except PyreqwestError:
            return None
        if response.status != 200 or (call.streamed and not text.rstrip().endswith(_END_OF_STREAM)):
            return None
        return response.get_header("x-tollgate-request-id")

    def _raise_what_clients_raised(self) -> None:
        for client in self._clients:
            if client.done():
                client.result()
