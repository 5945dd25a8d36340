"""Windows that all workers and replicas share, in Redis. Imported only where a Redis is configured: it takes memory."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from prometheus_client import Counter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from services.router.limits.windows import WINDOW_SECONDS, Claim, MemoryWindows, Room, Taking, refused

# A limit is not worth more: a Redis that takes longer is passed over, and each worker counts for itself.
TIMEOUT_SECONDS = 0.25
PAUSE_SECONDS = 1.0
CONNECTIONS_MAX = 16
_PREFIX = "tollgate:window:"

# The same sums per second as in `windows`, by the clock of Redis. ARGV holds limit and amount of each key.
_TAKE = f"""
local time = redis.call('TIME')
local second = tonumber(time[1])
local now_ms = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local reply, is_full = {{second, 0}}, false
for i, key in ipairs(KEYS) do
  local limit, used, newest, wait_ms, cells = tonumber(ARGV[2 * i - 1]), 0, 0, 0, {{}}
  local flat = redis.call('HGETALL', key)
  for j = 1, #flat, 2 do
    local cell = {{tonumber(flat[j]), tonumber(flat[j + 1])}}
    if (cell[1] + {WINDOW_SECONDS + 1}) * 1000 <= now_ms then
      redis.call('HDEL', key, flat[j])
    else
      used = used + cell[2]
      newest = math.max(newest, cell[1])
      table.insert(cells, cell)
    end
  end
  if used >= limit then
    is_full = true
    wait_ms = {WINDOW_SECONDS * 1000}
    table.sort(cells, function(a, b) return a[1] < b[1] end)
    local left = used
    for _, cell in ipairs(cells) do
      left = left - cell[2]
      if left < limit then
        wait_ms = (cell[1] + {WINDOW_SECONDS + 1}) * 1000 - now_ms
        break
      end
    end
  end
  table.insert(reply, used)
  table.insert(reply, newest > 0 and (newest + {WINDOW_SECONDS + 1}) * 1000 - now_ms or 0)
  table.insert(reply, wait_ms)
end
if not is_full then
  reply[2] = 1
  for i, key in ipairs(KEYS) do
    redis.call('HINCRBY', key, second, ARGV[2 * i])
    redis.call('EXPIRE', key, {WINDOW_SECONDS + 2})
  end
end
return reply
"""
# ARGV holds the second, then the amount of each key. What is given back of a forgotten second is forgotten with it.
_ADJUST = f"""
local now = redis.call('TIME')[1]
for i, key in ipairs(KEYS) do
  local amount = tonumber(ARGV[i + 1])
  local second = redis.call('HEXISTS', key, ARGV[1]) == 1 and ARGV[1] or now
  if second == ARGV[1] or amount > 0 then
    redis.call('HINCRBY', key, second, amount)
    redis.call('EXPIRE', key, {WINDOW_SECONDS + 2})
  end
end
"""

FAILURES = Counter("tollgate_router_redis_failures_total", "Questions to Redis that it did not answer in time.")

log = logging.getLogger("tollgate.limits")


class RedisWindows:
    """Shared windows; while Redis is away, windows of this worker alone. Lives as long as its worker."""

    def __init__(
        self, url: str, clock: Callable[[], float] = time.monotonic, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Raises ValueError for a URL that is none. Connects when it is first asked."""
        # Who finds all connections busy waits for one.
        pool = BlockingConnectionPool.from_url(
            url, max_connections=CONNECTIONS_MAX, timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        )
        self._redis = Redis.from_pool(pool)
        self._take = self._redis.register_script(_TAKE)
        self._adjust = self._redis.register_script(_ADJUST)
        self._local = MemoryWindows()
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._away_until = float("-inf")

    async def take(self, claims: Sequence[Claim]) -> Taking:
        if not self._is_away():
            arguments = [number for claim in claims for number in (claim.limit, claim.amount)]
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return _taking(claims, await self._take(keys=_keys(claims), args=arguments))
            except (RedisError, TimeoutError, OSError) as error:
                self._note_away(error)
        return self._local.take_at(self._clock(), claims)

    async def adjust(self, second: int, claims: Sequence[Claim]) -> None:
        if self._is_away():
            self._local.adjust_at(second, claims)
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._adjust(keys=_keys(claims), args=[second, *(claim.amount for claim in claims)])
        except (RedisError, TimeoutError, OSError) as error:
            self._note_away(error)

    async def close(self) -> None:
        await self._redis.aclose()

    def _is_away(self) -> bool:
        return self._clock() < self._away_until

    def _note_away(self, error: Exception) -> None:
        FAILURES.inc()
        if not self._is_away():
            why = str(error) or type(error).__name__
            log.warning("Redis does not answer; limits hold per worker until it does: %s", why)
        self._away_until = self._clock() + PAUSE_SECONDS


def _keys(claims: Sequence[Claim]) -> list[str]:
    return [_PREFIX + claim.name for claim in claims]


def _taking(claims: Sequence[Claim], reply: Sequence[int]) -> Taking:
    second, granted, *numbers = reply
    rooms = []
    for claim, used, reset_ms, wait_ms in zip(claims, numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        if granted:
            rooms.append(Room(claim.limit, max(0, claim.limit - used - claim.amount), WINDOW_SECONDS + 1.0, 0.0))
        else:
            rooms.append(Room(claim.limit, max(0, claim.limit - used), reset_ms / 1000, wait_ms / 1000))
    return Taking(rooms, second) if granted else refused(rooms, second)
