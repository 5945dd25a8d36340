"""Whatever breaks, every call that a client saw finished is billed once, and the books agree.

A few of all faults, with one seed; `make faults` runs all of them, for as long as it is told to.
"""

from collections.abc import AsyncIterator

import pytest

from tests.faults.footprint import Footprints
from tests.faults.runs import CALLS_AFTER, CALLS_BEFORE, run
from tests.faults.system import System

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(240)]
SEED = 1
# Each breaks another promise if it breaks one, and only the first takes more than ten seconds.
SELECTION = (
    "router killed ten times",
    "router killed after finish",
    "replies lost after commit",
    "postgres killed after commit",
    "ledger killed before commit",
    "bytes changed",
    "disk full",
    "a clock 10 min ahead",
)


@pytest.fixture(scope="module")
async def system() -> AsyncIterator[System]:
    system = await System.start()
    yield system
    await system.stop()


@pytest.fixture(scope="module")
def footprints() -> Footprints:
    return Footprints()


@pytest.mark.parametrize("fault", SELECTION)
async def test_every_finished_call_is_billed_once_after(fault: str, system: System, footprints: Footprints) -> None:
    done = await run(system, fault, SEED, footprints)

    assert done.problems == []
    assert done.comparison is not None
    assert done.comparison.finished_count >= CALLS_BEFORE + CALLS_AFTER
