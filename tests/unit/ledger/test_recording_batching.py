import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.common.errors import UnavailableError
from services.ledger.usage import batching
from services.ledger.usage.batching import BATCH_SIZE_MAX, JOIN_SIZE, QUEUE_SIZE_MAX, Batcher


class Store:
    """Writes numbers, doubled; odd ones fail. Waits for `gate` before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: Exception | None = None

    async def write(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        return [ValueError(str(item)) if item % 2 else item * 2 for item in items]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def batcher(store: Store) -> AsyncIterator[Batcher[int, int]]:
    running: Batcher[int, int] = Batcher(store.write)
    running.start()
    yield running
    store.gate.set()
    await running.close()


async def _settled() -> None:
    """Everybody has done what there is to do without the gate."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_together_is_written_together(store: Store, batcher: Batcher[int, int]) -> None:
    results = await asyncio.gather(*(batcher.submit(item, 1) for item in (2, 4, 6)))

    assert results == [4, 8, 12]
    assert store.batches == [[2, 4, 6]]


async def test_a_failure_is_its_own_items_alone(batcher: Batcher[int, int]) -> None:
    fine, failed = await asyncio.gather(batcher.submit(2, 1), batcher.submit(3, 1), return_exceptions=True)

    assert fine == 4
    assert isinstance(failed, ValueError)


async def test_a_batch_that_fails_as_a_whole_fails_for_everybody_and_the_next_one_is_written(
    store: Store, batcher: Batcher[int, int]
) -> None:
    store.broken = RuntimeError("broken")
    outcomes = await asyncio.gather(batcher.submit(2, 1), batcher.submit(4, 1), return_exceptions=True)
    store.broken = None

    assert all(isinstance(one, RuntimeError) for one in outcomes)
    assert await batcher.submit(2, 1) == 4


async def test_a_batch_has_a_largest_size(store: Store, batcher: Batcher[int, int]) -> None:
    await asyncio.gather(*(batcher.submit(2 * number, BATCH_SIZE_MAX // 2) for number in range(5)))

    assert [len(batch) for batch in store.batches] == [2, 2, 1]


async def test_a_full_batch_is_made_ready_while_the_one_before_is_written_and_a_third_is_not(
    store: Store, batcher: Batcher[int, int]
) -> None:
    store.gate.clear()
    submitted = [asyncio.create_task(batcher.submit(item, BATCH_SIZE_MAX)) for item in (2, 4, 6)]
    await _settled()

    assert store.batches == [[2], [4]]

    store.gate.set()
    assert await asyncio.gather(*submitted) == [4, 8, 12]
    assert store.batches == [[2], [4], [6]]


async def test_what_does_not_fill_a_batch_joins_whatever_comes_while_another_is_written(
    store: Store, batcher: Batcher[int, int]
) -> None:
    store.gate.clear()
    submitted = [asyncio.create_task(batcher.submit(2, JOIN_SIZE))]
    for item in (4, 6):
        await _settled()
        submitted.append(asyncio.create_task(batcher.submit(item, 1)))
    await _settled()

    assert store.batches == [[2]]

    store.gate.set()
    assert await asyncio.gather(*submitted) == [4, 8, 12]
    assert store.batches == [[2], [4, 6]]


async def test_what_is_larger_than_a_batch_is_written_alone(store: Store, batcher: Batcher[int, int]) -> None:
    await asyncio.gather(batcher.submit(2, BATCH_SIZE_MAX + 1), batcher.submit(4, 1))

    assert store.batches == [[2], [4]]


async def test_a_full_queue_says_so_at_once(store: Store, batcher: Batcher[int, int]) -> None:
    store.gate.clear()
    written = asyncio.create_task(batcher.submit(2, QUEUE_SIZE_MAX))
    await asyncio.sleep(0)

    with pytest.raises(UnavailableError):
        await batcher.submit(4, 1)

    store.gate.set()
    assert await written == 4


async def test_nobody_waits_beyond_the_deadline(
    store: Store, batcher: Batcher[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "DEADLINE_SECONDS", 0.02)
    store.gate.clear()

    with pytest.raises(UnavailableError):
        await batcher.submit(2, 1)


async def test_closing_writes_what_waits_and_takes_nothing_new(store: Store, batcher: Batcher[int, int]) -> None:
    store.gate.clear()
    first = asyncio.create_task(batcher.submit(2, BATCH_SIZE_MAX))
    second = asyncio.create_task(batcher.submit(4, 1))
    await asyncio.sleep(0.02)

    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await batcher.submit(6, 1)
    store.gate.set()
    await closing

    assert (await first, await second) == (4, 8)
