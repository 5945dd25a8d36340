"""Every fault there is, by name.

What has ended is started again, as a supervisor would; nothing else is done for anybody.
"""

import asyncio
from functools import partial

from tests.faults.faults_of_link import LINK_FAULTS
from tests.faults.faults_of_moments import MOMENT_FAULTS
from tests.faults.faults_of_routers import ROUTER_FAULTS
from tests.faults.faults_of_spool import SPOOL_FAULTS
from tests.faults.scene import Faults, Scene

STALL_SECONDS = 10.0
KILLED = ("router", "ledger", "reporting", "Envoy", "postgres")
STALLED = ("ledger", "postgres", "reporting")


async def killed_at_random(scene: Scene, name: str) -> None:
    """Twice, as a crash of a service that has just come back is another thing than the first."""
    for _ in range(2):
        await asyncio.sleep(scene.dice.uniform(0, 1.2))
        await scene.system.kill(name)
        await asyncio.sleep(scene.dice.uniform(0, 1.0))
        await scene.system.restart(name)


async def router_killed_ten_times(scene: Scene) -> None:
    """At random moments, some while it still starts to send what the one before it left."""
    for _ in range(10):
        await scene.load.finish_more(scene.dice.randint(1, 3))
        await asyncio.sleep(scene.dice.uniform(0, 0.3))
        await scene.system.kill("router")
        await scene.system.restart("router")


async def stalled(scene: Scene, name: str) -> None:
    await scene.system.stall(name, STALL_SECONDS)


async def rolling_restart(scene: Scene) -> None:
    """Every service, asked to stop and started again."""
    for name in ("ledger", "reporting", "router", "Envoy"):
        await scene.system.process(name).stop()
        await scene.system.restart(name)
        await scene.load.finish_more(5)


async def provider_misbehaves(scene: Scene) -> None:
    """Most answers are errors, cut off, too short for their length, or garbage; then it stalls, then it dies."""
    scene.load.trouble_share = 0.7
    await scene.load.finish_more(20)
    await scene.system.stall("simulator", scene.dice.uniform(1, 3))
    await killed_at_random(scene, "simulator")
    scene.load.trouble_share = 0.05


FAULTS: Faults = {
    **{f"{name} killed": partial(killed_at_random, name=name) for name in KILLED},
    "router killed ten times": router_killed_ten_times,
    **MOMENT_FAULTS,
    **LINK_FAULTS,
    **{f"{name} stalled for 10 s": partial(stalled, name=name) for name in STALLED},
    **SPOOL_FAULTS,
    **ROUTER_FAULTS,
    "provider misbehaves": provider_misbehaves,
    "rolling restart": rolling_restart,
}
