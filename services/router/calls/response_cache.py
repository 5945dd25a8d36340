"""Answers that are given again to the same request of the same project, for as long as the project wants."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from services.router.formats.endpoint import ModelRequest
from tollgate.ledger.v1.directory_service_pb2 import ResolveKeyResponse
from tollgate.ledger.v1.usage_pb2 import UsageRecord

NO_CACHE_HEADER = "x-tollgate-no-cache"
ANSWER_BYTES_MAX = 1024 * 1024
_ENTRY_BYTES = 1024
# They say who asks, not what.
_NOT_ASKED = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "project_id"})


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A provider's answer that came in full."""

    status: int
    content_type: str
    # Without what is sent last.
    body: bytes = field(repr=False)
    # Of a stream: its end marker.
    ending: bytes
    # Provider, model, funding and usage are those of the first call.
    record: UsageRecord

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + len(self.body) + len(self.ending)


class ResponseCache:
    """The latest answers of one worker, up to a number of bytes. Lives as long as it."""

    def __init__(self, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_max = bytes_max
        self._clock = clock
        self._bytes = 0
        # With when it was put there, so that a project that shortens its time is obeyed at once.
        self._answers: OrderedDict[bytes, tuple[float, CachedAnswer]] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, name: bytes, seconds_max: int) -> CachedAnswer | None:
        """The answer, when it is no older."""
        found = self._answers.get(name)
        if found is None:
            return None
        put_at, answer = found
        if self._clock() - put_at >= seconds_max:
            self._remove(name)
            return None
        self._answers.move_to_end(name)
        return answer

    def put(self, name: bytes, answer: CachedAnswer) -> None:
        """Keeps an answer; one that is too large is not kept."""
        if len(answer.body) > ANSWER_BYTES_MAX or answer.size > self._bytes_max:
            return
        if name in self._answers:
            self._remove(name)
        self._answers[name] = (self._clock(), answer)
        self._bytes += answer.size
        while self._bytes > self._bytes_max:
            self._remove(next(iter(self._answers)))

    def _remove(self, name: bytes) -> None:
        _, answer = self._answers.pop(name)
        self._bytes -= answer.size


def wants_no_cache(headers: Mapping[str, str]) -> bool:
    """True when a call asks to be made in any case: with any value of the header but `false` or `0`."""
    return headers.get(NO_CACHE_HEADER, "false").lower() not in ("false", "0")


def cache_name(grant: ResolveKeyResponse, request: ModelRequest) -> bytes:
    """The same for requests that ask the same: of one project, whatever the order of members and whoever asks."""
    asked = {name: value for name, value in request.members.items() if name not in _NOT_ASKED}
    scope = f"{grant.organization_id}/{grant.project_id}/{int(grant.project_mode)}/{request.endpoint.path}"
    # Headers that providers get may change the answer as well.
    content = orjson.dumps([scope, dict(request.headers), asked], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).digest()
