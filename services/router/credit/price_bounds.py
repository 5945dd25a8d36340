"""What calls can cost at most, as the ledger says, remembered for seconds; for five minutes while it is away."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import UnavailableError
from services.router.credit.worst_case import Bound, bound_from_proto
from tollgate.ledger.v1.credit_service_pb2 import GetPriceBoundsRequest, GetPriceBoundsResponse, PricedModel

STALE_SECONDS_MAX = 300.0
# After the ledger failed to answer, how long older answers are given without asking again.
FAILED_PAUSE_SECONDS = 1.0
ENTRIES_MAX = 20_000

# Raises UnavailableError.
GetPriceBounds = Callable[[GetPriceBoundsRequest], Awaitable[GetPriceBoundsResponse]]
_Name = tuple[str, str, str]


class Priced(Protocol):
    """Whatever names a model at a provider."""

    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    bound: Bound
    asked_at: float
    valid_seconds: float


class PriceBounds:
    """A cache over `CreditService.GetPriceBounds`. Lives as long as its worker."""

    def __init__(self, get: GetPriceBounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._get = get
        self._clock = clock
        self._entries: OrderedDict[_Name, _Entry] = OrderedDict()
        self._renewing: dict[_Name, asyncio.Task[None]] = {}
        self._failed_at = float("-inf")

    async def bounds(self, organization_id: str, models: Sequence[Priced]) -> list[Bound]:
        """One for each. Raises UnavailableError where the ledger is away and nothing is remembered."""
        now = self._clock()
        found = []
        for each in models:
            name = (organization_id, each.provider, each.model)
            entry = self._entries.get(name)
            age = now - entry.asked_at if entry is not None else 0.0
            if entry is None or age >= entry.valid_seconds:
                await self._ask_unless_stale_will_do(name, entry)
                entry = self._entries[name]
            elif age > entry.valid_seconds / 2 and name not in self._renewing:
                self._renew(name)
            found.append(entry.bound)
        return found

    async def _ask_unless_stale_will_do(self, name: _Name, entry: _Entry | None) -> None:
        now = self._clock()
        may_be_stale = entry is not None and now - entry.asked_at < STALE_SECONDS_MAX
        if may_be_stale and now - self._failed_at < FAILED_PAUSE_SECONDS:
            return
        try:
            task = self._renewing.get(name) or self._renew(name)
            # Shielded: one caller that gives up must not take the answer from the others.
            await asyncio.shield(task)
        except UnavailableError:
            self._failed_at = self._clock()
            if not may_be_stale:
                raise

    def _renew(self, name: _Name) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ask(name))
        self._renewing[name] = task
        task.add_done_callback(lambda done: self._renewed(name, done))
        return task

    def _renewed(self, name: _Name, done: asyncio.Task[None]) -> None:
        del self._renewing[name]
        if not done.cancelled():
            done.exception()  # Nobody may be waiting for a renewal; then its failure is nobody's news.

    async def _ask(self, name: _Name) -> None:
        organization_id, provider, model = name
        asked_at = self._clock()
        request = GetPriceBoundsRequest(
            organization_id=organization_id, models=[PricedModel(provider=provider, model=model)]
        )
        answer = await self._get(request)
        self._entries[name] = _Entry(bound_from_proto(answer.bounds[0]), asked_at, answer.valid_seconds)
        self._entries.move_to_end(name)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
