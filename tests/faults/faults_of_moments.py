"""Kills at chosen moments: before and after each durable step that a call's record takes.

The moments are seen from outside, in files, on the network and in the database; the services know nothing of it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import psycopg

from tests.faults.books_model import Call
from tests.faults.link import Flow
from tests.faults.scene import Faults, Scene
from tests.faults.spool_files import wait_for_entries
from tests.faults.system import until

_PROVIDER_DELAY_MS = 600
# Long enough for the records of the moment to get where they can.
_BLOCKED_SECONDS_MAX = 20.0
# Blocks the ledger after it has written records, and before it commits: this is what it locks last.
_LOCK_BALANCES = "LOCK TABLE ledger.balance IN SHARE ROW EXCLUSIVE MODE"
_IS_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tollgate_ledger' AND wait_event_type = 'Lock'"
_IS_RECORDED = "SELECT count(*) FROM reporting.usage_record WHERE organization_id = %s"


async def router_killed_after_start(scene: Scene) -> None:
    """`started` is on disk, the provider works on its answer."""
    async with _one_call(scene, delay_ms=_PROVIDER_DELAY_MS) as call:
        await wait_for_entries(scene.system.spool, call.tag, 1)
        await scene.system.kill("router")
    await scene.system.restart("router")


async def router_killed_after_finish(scene: Scene) -> None:
    """`finished` is on disk, perhaps not synced; the client has its answer or just does not."""
    scene.system.link.to_ledger = Flow.HOLD
    async with _one_call(scene) as call:
        await wait_for_entries(scene.system.spool, call.tag, 2)
        await scene.system.kill("router")
    scene.system.link.to_ledger = Flow.PASS
    await scene.system.restart("router")


async def killed_while_records_travel(scene: Scene, name: str) -> None:
    """The records have left the router, and the ledger has read none of them."""
    async with _one_call(scene) as call:
        held = scene.system.link.hold_from(call.tag.encode())
        await asyncio.wait_for(held.wait(), _BLOCKED_SECONDS_MAX)
        await scene.system.kill(name)
    scene.system.link.to_ledger = Flow.PASS
    await scene.system.restart(name)


async def killed_before_commit(scene: Scene, name: str) -> None:
    """The records are written and not committed."""
    async with _commits_blocked(scene):
        await scene.system.kill(name)
    await scene.system.restart(name)


async def writing_process_killed_before_commit(scene: Scene) -> None:
    """The same, and the ledger itself goes on: it starts another."""
    async with _commits_blocked(scene):
        scene.system.kill_below("ledger")


@asynccontextmanager
async def _commits_blocked(scene: Scene) -> AsyncIterator[None]:
    """Entered once a batch waits to be committed."""
    with scene.system.connect() as watching, _balances_locked(scene):

        def is_blocked() -> bool:
            return watching.execute(_IS_BLOCKED).fetchone() != (0,)

        await until(is_blocked, "the ledger does not commit anything", _BLOCKED_SECONDS_MAX)
        yield


@contextmanager
def _balances_locked(scene: Scene) -> Iterator[None]:
    """Until PostgreSQL is killed, or the block ends."""
    with suppress(psycopg.OperationalError), scene.system.connect() as connection, connection.transaction():
        connection.execute(_LOCK_BALANCES)
        yield


async def killed_after_commit(scene: Scene, name: str) -> None:
    """The records are in the books, and the router does not know."""
    scene.system.link.to_router = Flow.HOLD
    with scene.system.connect() as connection:
        before = connection.execute(_IS_RECORDED, (scene.customer.organization_id,)).fetchone()

        def is_recorded() -> bool:
            return connection.execute(_IS_RECORDED, (scene.customer.organization_id,)).fetchone() != before

        await until(is_recorded, "nothing was recorded", _BLOCKED_SECONDS_MAX)
    await scene.system.kill(name)
    scene.system.link.cut()
    scene.system.link.to_router = Flow.PASS
    await scene.system.restart(name)


@asynccontextmanager
async def _one_call(scene: Scene, *, delay_ms: int = 0) -> AsyncIterator[Call]:
    """A call of its own among the others, however it ends."""
    call = scene.load.new_call(delay_ms=delay_ms)
    making = asyncio.create_task(scene.load.make(call))
    try:
        yield call
    finally:
        await making


MOMENT_FAULTS: Faults = {
    "router killed after start": router_killed_after_start,
    "router killed after finish": router_killed_after_finish,
    "router killed while sending": partial(killed_while_records_travel, name="router"),
    "ledger killed while sending": partial(killed_while_records_travel, name="ledger"),
    "ledger killed before commit": partial(killed_before_commit, name="ledger"),
    "ledger's writing process killed before commit": writing_process_killed_before_commit,
    "postgres killed before commit": partial(killed_before_commit, name="postgres"),
    "router killed after commit": partial(killed_after_commit, name="router"),
    "ledger killed after commit": partial(killed_after_commit, name="ledger"),
    "postgres killed after commit": partial(killed_after_commit, name="postgres"),
}
