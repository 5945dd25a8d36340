"""`make run`: starts everything, makes a few calls, prints the bill, stays up until Ctrl-C."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from development.addresses import Addresses
from development.demo import run_demo
from development.processes import Process, StackError
from development.stack import Stack
from development.state import State
from services.common.settings import Environment, SettingError

WATCH_SECONDS = 0.5
STATE_DIRECTORY = Path(os.environ.get("TOLLGATE_STATE_DIRECTORY") or ".tollgate").resolve()

console = Console(highlight=False)


async def main() -> None:
    """Ends on SIGINT or SIGTERM, and leaves no process behind however it ends."""
    _cancel_on_signal(asyncio.current_task())
    state = State(STATE_DIRECTORY)
    stack = Stack(state, Addresses.read(Environment(os.environ)))
    began = time.monotonic()
    try:
        await stack.start(_report)
        await run_demo(stack, console)
        console.print(f"\nAll this took {time.monotonic() - began:.1f} s. Ctrl-C stops it.")
        console.print(f"Logs are in {state.directory}/logs.")
        await asyncio.gather(*(_keep_running(process) for process in stack.processes.values()))
    finally:
        console.print("\nStopping …")
        await stack.stop()
        console.print("Everything has stopped.")


def _report(what: str, seconds: float) -> None:
    console.print(f"  [green]✓[/] {what} [dim]{seconds:.1f} s[/]")


async def _keep_running(process: Process) -> None:
    """Starts it again whenever it ends, as whatever runs it in production would."""
    while True:
        await process.wait()
        console.print(f"[yellow]{process.name} ended; starting it again.[/]")
        await asyncio.sleep(WATCH_SECONDS)
        await process.start()
        console.print(f"[yellow]{process.name} is back.[/]")


def _cancel_on_signal(task: asyncio.Task[None] | None) -> None:
    loop = asyncio.get_running_loop()

    def stop_once() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)  # stopping is under way; let it finish
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_once)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(0)
    except (StackError, SettingError) as error:
        sys.exit(f"tollgate: {error}")
