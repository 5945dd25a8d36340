"""How much a key, a project, an end user and an address may ask for, and a permit for each call that is let in."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.common.errors import DomainError, ErrorKind
from services.router.limits.windows import Claim, MemoryWindows, Room, Taking, Windows

# A byte of text is a quarter of a token or less: what a call takes from a window until its real usage is known.
BYTES_PER_TOKEN = 4
Headers = list[tuple[str, str]]
_OF_REQUESTS, _OF_TOKENS = (
    (f"x-ratelimit-limit-{things}", f"x-ratelimit-remaining-{things}", f"x-ratelimit-reset-{things}")
    for things in ("requests", "tokens")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one subject may ask for. None is no limit; zero lets nothing through."""

    requests_per_minute: int | None = None
    # Input and output. A call is let in while any are left, and counts in full.
    tokens_per_minute: int | None = None
    # At the same time, in one worker.
    concurrent_calls: int | None = None


class Subject(NamedTuple):
    """Who is limited."""

    # As a message calls it: `key`, `project`, `end user`, `address`.
    kind: str
    id: str
    limit: Limit


class RateLimitedError(DomainError):
    """Too much was asked for. `headers` say how much is allowed."""

    kind = ErrorKind.EXHAUSTED
    reason = "RATE_LIMITED"

    def __init__(self, what: str, wait_seconds: float, headers: Headers | None = None) -> None:
        seconds = max(1, math.ceil(wait_seconds))
        super().__init__(f"{what}; try again in {seconds} s.", retry_after_seconds=str(seconds))
        self.retry_after_seconds = seconds
        self.headers: Headers = headers or []


class LocalWindows:
    """Windows of this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._windows = MemoryWindows()
        self._clock = clock

    async def take(self, claims: Sequence[Claim]) -> Taking:
        return self._windows.take_at(self._clock(), claims)

    async def adjust(self, second: int, claims: Sequence[Claim]) -> None:
        self._windows.adjust_at(second, claims)


@dataclass(slots=True)
class Permit:
    """One call that was let in. Has to be ended."""

    # The `x-ratelimit-…` headers of the answer. Empty where nothing is limited.
    headers: Headers = field(default_factory=list)
    _limiter: "Limiter | None" = None
    _running: Sequence[str] = ()
    _token_claims: Sequence[Claim] = ()
    _second: int = 0

    async def end(self, tokens: int) -> None:
        """The call is over and used so many tokens. Only the first time counts."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            await limiter.settle(self._running, self._second, self._token_claims, tokens)


class Limiter:
    """Lets calls in, or says when to come back. Lives as long as its worker."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._running: Counter[str] = Counter()

    async def admit(self, subjects: Sequence[Subject], body_bytes: int) -> Permit:
        """A permit for one call. Raises RateLimitedError, and then nothing was taken from any window."""
        if not subjects:
            return Permit()
        running = self._start_running(subjects)
        try:
            request_claims, token_claims = _claims(subjects, body_bytes)
            claims = request_claims + token_claims
            taking = await self._windows.take(claims) if claims else Taking((), 0)
            headers = _headers(taking.rooms, len(request_claims))
            if taking.wait_seconds > 0:
                raise _refusal(subjects, len(request_claims), taking, headers)
        except BaseException:
            self._stop_running(running)
            raise
        return Permit(headers, self, running, token_claims, taking.second)

    async def settle(self, running: Sequence[str], second: int, token_claims: Sequence[Claim], tokens: int) -> None:
        """For permits: puts the tokens that were really used in the place of the estimate."""
        self._stop_running(running)
        changes = [Claim(name, limit, tokens - amount) for name, limit, amount in token_claims if tokens != amount]
        if changes:
            await self._windows.adjust(second, changes)

    def _start_running(self, subjects: Sequence[Subject]) -> Sequence[str]:
        limited = [subject for subject in subjects if subject.limit.concurrent_calls is not None]
        if not limited:
            return ()
        for subject in limited:
            if self._running[_name(subject)] >= (subject.limit.concurrent_calls or 0):
                count = subject.limit.concurrent_calls
                raise RateLimitedError(f"This {subject.kind} may have {count} calls running at the same time", 1)
        names = [_name(subject) for subject in limited]
        self._running.update(names)
        return names

    def _stop_running(self, names: Sequence[str]) -> None:
        for name in names:
            self._running[name] -= 1
            if self._running[name] <= 0:
                del self._running[name]


def _name(subject: Subject) -> str:
    return f"{subject.kind}:{subject.id}"


def _claims(subjects: Sequence[Subject], body_bytes: int) -> tuple[list[Claim], list[Claim]]:
    """Of calls, and of tokens."""
    requests, tokens = [], []
    for kind, name, limit in subjects:
        if limit.requests_per_minute is not None:
            requests.append(Claim(f"requests:{kind}:{name}", limit.requests_per_minute))
        if limit.tokens_per_minute is not None:
            tokens.append(Claim(f"tokens:{kind}:{name}", limit.tokens_per_minute, body_bytes // BYTES_PER_TOKEN))
    return requests, tokens


def _refusal(subjects: Sequence[Subject], request_count: int, taking: Taking, headers: Headers) -> RateLimitedError:
    """Names the window that takes longest."""
    waits = [room.wait_seconds for room in taking.rooms]
    worst = waits.index(max(waits))
    by_requests = [each for each in subjects if each.limit.requests_per_minute is not None]
    by_tokens = [each for each in subjects if each.limit.tokens_per_minute is not None]
    kind = [*by_requests, *by_tokens][worst].kind
    thing = "calls" if worst < request_count else "tokens"
    return RateLimitedError(
        f"This {kind} is limited to {taking.rooms[worst].limit} {thing} a minute", waits[worst], headers
    )


def _headers(rooms: Sequence[Room], request_count: int) -> Headers:
    """As OpenAI spells them, of the window with the least room left."""
    headers: Headers = []
    for names, those in ((_OF_REQUESTS, rooms[:request_count]), (_OF_TOKENS, rooms[request_count:])):
        if those:
            room = those[0] if len(those) == 1 else min(those, key=_share_left)
            headers += zip(names, (str(room.limit), str(room.left), f"{math.ceil(room.reset_seconds)}s"), strict=True)
    return headers


def _share_left(room: Room) -> float:
    return room.left / room.limit if room.limit else 0.0
