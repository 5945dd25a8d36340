"""Two routers that do not agree: on the time."""

import subprocess
from functools import partial
from pathlib import Path

from development.addresses import Addresses
from tests.faults.scene import Faults, Scene

_SOURCE = Path(__file__).with_name("shifted_clock.c")


async def clocks_apart(scene: Scene, *, shift_seconds: int) -> None:
    """A second router takes calls beside the first, and its clock is another one."""
    system = scene.system
    addresses, spool = Addresses.free(), system.directory / "spool-2"
    environment = {"LD_PRELOAD": str(_library(system.directory)), "CLOCK_SHIFT_SECONDS": str(shift_seconds)}
    second = system.stack.router("router 2", addresses, spool, environment)
    url = f"http://{addresses.router_http}"
    await second.start()
    try:
        scene.load.urls.append(url)
        await scene.load.finish_more(60)
        scene.load.urls.remove(url)
        await system.settle(addresses.router_metrics)
    finally:
        await second.stop()


def _library(directory: Path) -> Path:
    built = directory / "shifted_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(built), str(_SOURCE), "-ldl"], check=True)
    return built


ROUTER_FAULTS: Faults = {
    "a clock 10 min behind": partial(clocks_apart, shift_seconds=-600),
    "a clock 10 min ahead": partial(clocks_apart, shift_seconds=600),
}
