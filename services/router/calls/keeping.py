"""What is done when a call is over: its permit ends, and its answer is kept for whoever may get it again."""

from dataclasses import dataclass

from services.router.calls.idempotency import Claim, KeptAnswer
from services.router.calls.response_cache import CachedAnswer, ResponseCache
from services.router.limits.limits import Permit
from tollgate.ledger.v1 import usage_pb2


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Where a call's answer is looked for in the response cache, and put."""

    cache: ResponseCache
    name: bytes


@dataclass(slots=True)
class Keeping:
    """What waits for the end of one call."""

    permit: Permit
    claim: Claim | None
    cache_entry: CacheEntry | None

    @property
    def wants_copy(self) -> bool:
        """Whether a streamed answer has to be written down."""
        return self.claim is not None or self.cache_entry is not None

    def cached(self, seconds_max: int) -> CachedAnswer | None:
        """An answer to the same request, no older than that."""
        entry = self.cache_entry
        return entry.cache.get(entry.name, seconds_max) if entry is not None else None

    async def end(self, answer: KeptAnswer | None, cacheable: CachedAnswer | None, *, tokens: int) -> None:
        """The call is over. Without an answer there is nothing to give again; only successes go into the cache."""
        if self.claim is not None:
            if answer is not None:
                self.claim.keep(answer)
            self.claim.give_up()
        if self.cache_entry is not None and cacheable is not None and _may_be_cached(cacheable):
            self.cache_entry.cache.put(self.cache_entry.name, cacheable)
        await self.permit.end(tokens)


def _may_be_cached(answer: CachedAnswer) -> bool:
    succeeded = answer.record.outcome in (usage_pb2.OUTCOME_SUCCESS, usage_pb2.OUTCOME_CLIENT_GONE)
    # An estimate is good enough to be billed, but not to be repeated.
    return succeeded and answer.record.usage_source == usage_pb2.USAGE_SOURCE_REPORTED
