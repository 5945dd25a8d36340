"""What a disk does to a spool: it runs full, a write is torn, bytes change, files are lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.link import Flow
from tests.faults.scene import Faults, Scene
from tests.faults.spool_files import finished_entries, flip, overwrite, segments_of, tear
from tests.faults.system import figures_of

# So that little disk is much.
_PADDING_COUNT = 14
_FULL_SECONDS_MAX = 30.0
_REFUSAL_COUNT = 20
_RECORD_COUNT = 60


async def disk_full(scene: Scene) -> None:
    """Calls are refused, and taken again when there is room; what had begun is recorded."""
    system, load = scene.system, scene.load
    load.padding_count = _PADDING_COUNT
    system.link.to_ledger = Flow.HOLD
    system.disk.fill(system.pids("router"))
    try:
        await _until_refused(scene)
        await asyncio.sleep(1)
    finally:
        system.disk.free()
        system.link.to_ledger = Flow.PASS
        load.padding_count = 0


async def _until_refused(scene: Scene) -> None:
    """Calls are refused because they could not be recorded."""
    metrics_address = scene.system.stack.addresses.router_metrics
    refusals = "tollgate_spool_refusals_total"
    before = (await figures_of(metrics_address))[refusals]
    async with asyncio.timeout(_FULL_SECONDS_MAX):
        while (await figures_of(metrics_address)).get(refusals, before) < before + _REFUSAL_COUNT:  # noqa: ASYNC110 the router is another process
            await asyncio.sleep(0.1)


async def write_torn(scene: Scene) -> None:
    """The last entry is half there. It was of a call that nobody saw finish."""
    async with _router_down_with_records(scene):
        tear(segments_of(scene.system.spool)[-1], scene.dice)


async def bytes_changed(scene: Scene) -> None:
    """Records in the middle are damaged: they may be lost, and no other."""
    async with _router_down_with_records(scene):
        for path in segments_of(scene.system.spool):
            entries = list(finished_entries(path))
            for entry, record in scene.dice.sample(entries, min(3, len(entries))):
                scene.model.damaged.add(record.metadata["fault-call"])
                flip(path, scene.dice.randrange(entry.start, entry.end))


async def header_changed(scene: Scene) -> None:
    """Nobody can tell whose the segment is; its records are all there."""
    async with _router_down_with_records(scene):
        for path in segments_of(scene.system.spool):
            flip(path, scene.dice.randrange(8, 40))


async def registers_lost(scene: Scene) -> None:
    """Who the producer is and what the ledger has is not known any more."""
    async with _router_down_with_records(scene):
        for register in ("identity", "cursor"):
            overwrite(scene.system.spool / "0" / register, 0, scene.dice.randbytes(36))


@asynccontextmanager
async def _router_down_with_records(scene: Scene) -> AsyncIterator[None]:
    """Records have piled up, the router was killed, and its files are anybody's."""
    scene.system.link.to_ledger = Flow.HOLD
    await scene.load.finish_more(_RECORD_COUNT)
    await scene.system.kill("router")
    scene.system.link.to_ledger = Flow.PASS
    yield
    await scene.system.restart("router")


SPOOL_FAULTS: Faults = {
    "disk full": disk_full,
    "write torn": write_torn,
    "bytes changed": bytes_changed,
    "header changed": header_changed,
    "registers lost": registers_lost,
}
