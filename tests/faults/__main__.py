"""Breaks the whole system for minutes: `python -m tests.faults --minutes 10`.

Goes through every fault, again and again with another seed, prints a line for each run and a table at the end, and
exits 1 when a promise was broken. The files of a system that broke one are kept.
"""

import argparse
import asyncio
import sys
import time

from tests.faults.catalogue import FAULTS
from tests.faults.footprint import Footprints
from tests.faults.runs import Run, run
from tests.faults.system import System
from tests.faults.table import render


async def main() -> int:
    options = _options()
    deadline = time.monotonic() + options.minutes * 60
    runs: list[Run] = []
    while not runs or time.monotonic() < deadline:
        await _one_system(options, deadline, runs)
    print()
    print(render(runs))
    return 1 if any(each.problems for each in runs) else 0


async def _one_system(options: argparse.Namespace, deadline: float, runs: list[Run]) -> None:
    """Until the time is over, or something went wrong: the next fault is to find a whole system."""
    system = await System.start()
    footprints = Footprints()
    is_whole = True
    try:
        while is_whole and (not runs or time.monotonic() < deadline):
            fault = options.fault[len(runs) % len(options.fault)]
            done = await run(system, fault, options.seed + len(runs) // len(options.fault), footprints)
            runs.append(done)
            is_whole = not done.problems
            _report(done)
    finally:
        await system.stop(keep_files=not is_whole)
        if not is_whole:
            print(f"  logs and data: {system.directory}", flush=True)


def _report(done: Run) -> None:
    calls = f"{done.comparison.finished_count}/{done.comparison.call_count}" if done.comparison else "?"
    print(f"{done.fault}, seed {done.seed}: {calls} calls finished, {done.seconds:.0f} s", flush=True)
    for problem in done.problems:
        print(f"  {problem}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on; 0 for one run")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each round takes the next")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one; may be repeated")
    options = parser.parse_args()
    options.fault = options.fault or list(FAULTS)
    return options


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
