"""A client that sends a call again under the same `idempotency-key` gets the first result, and is billed once."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.common.errors import InvalidRequestError
from services.router.errors import IdempotencyKeyReusedError

IDEMPOTENCY_HEADER = "idempotency-key"
KEY_LENGTH_MAX = 255
KEPT_SECONDS = 3600.0
KEPT_BYTES_MAX = 16 * 1024 * 1024
# A larger answer is not kept: the call under its key would be made anew.
ANSWER_BYTES_MAX = 4 * 1024 * 1024
_ENTRY_BYTES = 512


class Name(NamedTuple):
    """What a key is unique in."""

    api_key_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    streamed: bool


@dataclass(slots=True)
class _Running:
    fingerprint: bytes
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Kept:
    fingerprint: bytes
    until: float
    answer: KeptAnswer

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + len(self.answer.body)


class Claim:
    """The first call under a key. Has to be kept or given up."""

    def __init__(self, keys: "IdempotencyKeys", name: Name) -> None:
        self._keys = keys
        self._name = name

    def keep(self, answer: KeptAnswer) -> None:
        """Every later call under the key is answered so."""
        self._keys.settle(self._name, answer)

    def give_up(self) -> None:
        """The call has no result worth keeping; the next one under the key is made. Does nothing after `keep`."""
        self._keys.settle(self._name, None)


class IdempotencyKeys:
    """What was answered under which key lately, in this worker. Lives as long as it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._bytes = 0
        self._running: dict[Name, _Running] = {}
        # The oldest first.
        self._kept: OrderedDict[Name, _Kept] = OrderedDict()

    async def claim(self, name: Name, fingerprint: bytes) -> Claim | KeptAnswer:
        """The kept answer, waiting for it where the first call is still running; else a claim, for the first call.

        Raises IdempotencyKeyReusedError when the first call was another one.
        """
        while (running := self._running.get(name)) is not None:
            _require_same(running.fingerprint, fingerprint)
            await running.done.wait()
        self._forget()
        kept = self._kept.get(name)
        if kept is not None:
            _require_same(kept.fingerprint, fingerprint)
            return kept.answer
        self._running[name] = _Running(fingerprint)
        return Claim(self, name)

    def settle(self, name: Name, answer: KeptAnswer | None) -> None:
        """For claims."""
        running = self._running.pop(name, None)
        if running is None:
            return
        if answer is not None and len(answer.body) <= ANSWER_BYTES_MAX:
            kept = self._kept[name] = _Kept(running.fingerprint, self._clock() + KEPT_SECONDS, answer)
            self._bytes += kept.size
        running.done.set()

    def _forget(self) -> None:
        """What is old, and the oldest where there is too much."""
        now = self._clock()
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            if oldest.until > now and self._bytes <= self._bytes_max:
                return
            del self._kept[name]
            self._bytes -= oldest.size


def _require_same(first: bytes, later: bytes) -> None:
    if first != later:
        raise IdempotencyKeyReusedError


def require_key(value: str) -> str:
    """Raises InvalidRequestError for what is no key."""
    if not 0 < len(value) <= KEY_LENGTH_MAX:
        raise InvalidRequestError(IDEMPOTENCY_HEADER, f"must have 1 to {KEY_LENGTH_MAX} characters")
    return value


def fingerprint(path: str, project_id: str, body: bytes) -> bytes:
    """The same for the same request only."""
    return hashlib.sha256(b"\0".join((path.encode(), project_id.encode(), body))).digest()
