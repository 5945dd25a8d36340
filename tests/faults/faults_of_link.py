"""What a network does between router and ledger."""

import asyncio
from functools import partial

from tests.faults.link import Flow
from tests.faults.scene import Faults, Scene

# More than a call of the sender may take, so that it gives up and tries again.
_CUT_SECONDS = 12.0
# Keepalive finds a connection that is gone after 35 s.
_BACK_SECONDS_MAX = 60.0


async def replies_lost(scene: Scene) -> None:
    """Everything the ledger is told it does; what it answers is lost, and the connection with it. Several times."""
    link = scene.system.link
    for _ in range(4):
        link.to_router = Flow.LOSE
        await asyncio.sleep(scene.dice.uniform(0.1, 1.0))
        link.cut()
        link.to_router = Flow.PASS
        await asyncio.sleep(scene.dice.uniform(0, 0.5))


async def cut_one_way(scene: Scene, *, to_ledger: bool) -> None:
    """Bytes of one direction vanish; connections that lost some stay dead, without a word, for ever."""
    link = scene.system.link
    lost, passing = Flow.LOSE, Flow.PASS
    link.to_ledger, link.to_router = (lost, passing) if to_ledger else (passing, lost)
    await asyncio.sleep(_CUT_SECONDS)
    link.to_ledger = link.to_router = Flow.PASS
    await scene.load.finish_more(20, _BACK_SECONDS_MAX)


async def connections_reset(scene: Scene) -> None:
    for _ in range(10):
        await asyncio.sleep(scene.dice.uniform(0, 0.3))
        scene.system.link.cut()


LINK_FAULTS: Faults = {
    "replies lost after commit": replies_lost,
    "cut on the way to the ledger": partial(cut_one_way, to_ledger=True),
    "cut on the way back": partial(cut_one_way, to_ledger=False),
    "connections reset": connections_reset,
}
