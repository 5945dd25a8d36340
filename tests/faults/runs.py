"""One run: clients call, a fault strikes, everything heals, and the books are examined."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.books_model import Comparison, Model
from tests.faults.catalogue import FAULTS
from tests.faults.examination import examine
from tests.faults.footprint import Footprints
from tests.faults.load import Load
from tests.faults.scene import Scene
from tests.faults.system import System

CALLS_BEFORE, CALLS_AFTER = 15, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it. Repeatable as far as machines are: the fault and the seed decide everything we decide."""

    fault: str
    seed: int
    seconds: float
    # None when it could not be examined; then the problems say why.
    comparison: Comparison | None
    problems: list[str]


async def run(system: System, fault: str, seed: int, footprints: Footprints) -> Run:
    """Never raises for what services do wrong: that is a problem of the run."""
    started = time.monotonic()
    dice = random.Random(f"{fault} {seed}")
    model = Model()
    comparison = None
    problems: list[str] = []
    with _noting(problems):
        customer = await system.new_customer()
        load = Load([system.stack.url], customer.api_key, model, f"call-{seed}", dice)
        async with load:
            await load.finish_more(CALLS_BEFORE)
            await FAULTS[fault](Scene(system, customer, load, model, dice))
            await load.finish_more(CALLS_AFTER)
        examination = await examine(system, customer, model)
        comparison = examination.comparison
        problems += [*examination.problems, *footprints.grown(system)]
    seconds = time.monotonic() - started
    return Run(fault=fault, seed=seed, seconds=seconds, comparison=comparison, problems=problems)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever it is, the next fault is worth trying
        problems.append(f"{type(error).__name__}: {error}")
