"""The whole stack on ports and files of its own, with a link and a disk that faults can be made on."""

import asyncio
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any, Self

import psycopg
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from development.addresses import Addresses
from development.postgres import EmbeddedPostgres
from development.processes import Process
from development.stack import DATABASE, Stack
from development.state import State
from tests.faults.link import Link
from tests.faults.process_tree import is_there, send, tree_of
from tests.faults.spool_disk import SpoolDisk

GRANT_USD = Decimal(1000)
SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.05
# Small files, so that a run sees many of them.
_ROUTER_SETTINGS = {"TOLLGATE_SPOOL_SEGMENT_MIB": "1", "TOLLGATE_SPOOL_MIB_MAX": "48"}

Json = dict[str, Any]


class NotSettledError(AssertionError):
    """Something is still under way although nothing is wrong any more."""


@dataclass(frozen=True, slots=True)
class Customer:
    """An organization of one run's own."""

    organization_id: str
    api_key: str


class System:
    """Everything that is broken and healed. Lives for many runs."""

    def __init__(self, directory: Path) -> None:
        """Use `start`."""
        addresses = Addresses.free()
        self.link = Link(Addresses.free().ledger, target=addresses.ledger)
        settings = {**_ROUTER_SETTINGS, "TOLLGATE_LEDGER_ADDRESS": self.link.address}
        self.stack = Stack(State(directory), addresses, {"TOLLGATE_LOG_LEVEL": "WARNING"}, settings)
        self.disk = SpoolDisk(self.stack.state.spool)

    @classmethod
    async def start(cls) -> Self:
        system = cls(_new_directory())
        system.disk.mount()
        try:
            await system.link.start()
            await system.stack.start()
        except BaseException:
            await system.stop()
            raise
        return system

    async def stop(self, *, keep_files: bool = False) -> None:
        await self.stack.stop()
        await self.link.stop()
        self.disk.unmount()
        if not keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def directory(self) -> Path:
        return self.stack.state.directory

    @property
    def spool(self) -> Path:
        return self.stack.state.spool

    def process(self, name: str) -> Process:
        return self.stack.processes[name]

    def pids(self, name: str) -> list[int]:
        """A service's processes, or those of `postgres`. Empty when it is down."""
        pid = self._postgres.pid if name == "postgres" else self.process(name).pid
        return tree_of(pid) if pid is not None and is_there(pid) else []

    async def kill(self, name: str) -> None:
        """At once, with everything it started."""
        if name == "postgres":
            pids = self.pids(name)
            send(pids, SIGKILL)
            # One that was not waited for yet would be taken for a server that runs.
            await until(lambda: not any(map(is_there, pids)), "PostgreSQL has not ended")
        else:
            await self.process(name).kill()

    async def restart(self, name: str) -> None:
        """As a supervisor does with what has ended."""
        if name == "postgres":
            self.stack.postgres = await asyncio.to_thread(_start_postgres, self.stack.state.postgres)
        else:
            await self.process(name).start()

    def kill_below(self, name: str) -> None:
        """What a service has started, and not itself."""
        send(self.pids(name)[1:], SIGKILL)

    async def stall(self, name: str, seconds: float) -> None:
        """Stops it in mid-work, and lets it go on after a while."""
        pids = self.pids(name)
        send(pids, SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            send(pids, SIGCONT)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """To the database, as its administrator."""
        return psycopg.connect(self._postgres.url(DATABASE), autocommit=True)

    async def new_customer(self) -> Customer:
        """Raises NotSettledError when the services do not take it."""
        made = await self._create("/v1/organizations", {"display_name": "Faults"})
        organization_id = made["organization"]["organization_id"]
        own = {"organization_id": organization_id}
        await self._create("/v1/projects", {**own, "project_id": "web"})
        await self._create("/v1/credit_grants", {**own, "grant_id": secrets.token_hex(8), "amount": str(GRANT_USD)})
        key = await self._create("/v1/api_keys", own)
        return Customer(organization_id, key["secret"])

    async def get(self, path: str, api_key: str) -> Json:
        """Asks until it is answered: a service may have just come back."""
        return await self._ask("GET", path, api_key, None)

    async def settle(self, router_metrics: str | None = None) -> None:
        """Returns when the ledger has every record that a router had: ours, or another. Raises NotSettledError."""
        address = router_metrics or self.stack.addresses.router_metrics
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := await _left_in(address)) != 0:
            if time.monotonic() > deadline:
                raise NotSettledError(f"a router still has {left} records or calls after {SETTLE_SECONDS} s")
            await asyncio.sleep(_POLL_SECONDS)

    @property
    def _postgres(self) -> EmbeddedPostgres:
        assert self.stack.postgres is not None
        return self.stack.postgres

    async def _create(self, path: str, body: Json) -> Json:
        return await self._ask("POST", path, self.stack.secrets.operator_key, body)

    async def _ask(self, method: str, path: str, api_key: str, body: Json | None) -> Json:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            status, answer = await _send(method, self.stack.url + path, api_key, body)
            if status == 200:
                return answer
            if time.monotonic() > deadline or (status is not None and status < 500):
                raise NotSettledError(f"{method} {path} is answered {status}: {answer}")
            await asyncio.sleep(_POLL_SECONDS)


async def until(holds: Any, otherwise: str, seconds_max: float = 20.0) -> None:
    """Returns when a condition holds. Raises NotSettledError."""
    deadline = time.monotonic() + seconds_max
    while not holds():
        if time.monotonic() > deadline:
            raise NotSettledError(f"{otherwise} after {seconds_max} s")
        await asyncio.sleep(0.01)


def _new_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="tollgate-faults-"))
    directory.chmod(0o755)  # as root, PostgreSQL runs as another user
    return directory


def _start_postgres(directory: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory)


async def _send(method: str, url: str, api_key: str, body: Json | None) -> tuple[int | None, Json]:
    async with ClientBuilder().build() as client:
        request = client.request(method, url).header("authorization", f"Bearer {api_key}")
        if body is not None:
            request = request.body_json(body)
        try:
            response = await request.build().send()
            return response.status, await response.json()
        except PyreqwestError as error:
            return None, {"error": str(error)}


async def _left_in(metrics_address: str) -> float:
    """Records and calls that a router has not dealt with; infinite when it does not say."""
    figures = await figures_of(metrics_address)
    unknown = float("inf")
    return figures.get("tollgate_spool_records", unknown) + figures.get("tollgate_spool_open_calls", unknown)


async def figures_of(metrics_address: str) -> dict[str, float]:
    """What a service tells Prometheus; nothing when it does not answer."""
    async with ClientBuilder().build() as client:
        try:
            text = await (await client.get(f"http://{metrics_address}/metrics").build().send()).text()
        except PyreqwestError:
            return {}
    named = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(figure) for name, figure in named}
