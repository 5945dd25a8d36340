"""Everything at once: PostgreSQL, ledger, reporting, router, simulated provider, Envoy. For development and tests."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from development.addresses import Addresses, port_of
from development.gateway import render
from development.postgres import EmbeddedPostgres
from development.processes import Process, StackError
from development.readiness import all_of, answers_grpc_health, answers_http
from development.state import State

ROOT = Path(__file__).parents[1]
DATABASE = "tollgate"
PROVIDERS = ROOT / "development" / "providers.toml"

Report = Callable[[str, float], None]
T = TypeVar("T")


class Stack:
    """The whole system. `start` returns when every part answers; `stop` leaves no process behind."""

    def __init__(
        self,
        state: State,
        addresses: Addresses,
        environment: Mapping[str, str] | None = None,
        router_environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is given to every process, over what we set: for tests that want another setting.

        `router_environment` is given to the router only, over that.
        """
        self.state = state
        self.addresses = addresses
        state.prepare()
        self.secrets = state.secrets()
        self.postgres: EmbeddedPostgres | None = None
        self.processes: dict[str, Process] = {}
        self._overrides = dict(environment or {})
        self._router_overrides = dict(router_environment or {})

    @property
    def url(self) -> str:
        """The front door."""
        return f"http://{self.addresses.front_door}"

    async def start(self, report: Report = lambda _what, _seconds: None) -> None:
        """Tells `report` of every part that came up, and how long it took. Raises StackError in one line."""
        taken = self.addresses.in_use()
        if taken:
            raise StackError(f"{taken[0]} is in use; stop what listens there, or set the variable to another address")
        admin_url = await _timed("PostgreSQL", report, asyncio.to_thread(self._start_postgres))
        await _timed("schema", report, asyncio.to_thread(self._migrate, admin_url))
        self.processes = {process.name: process for process in self._all_processes(admin_url)}
        for process in self.processes.values():
            await _timed(process.name, report, process.start())

    async def stop(self) -> None:
        """The front door first, the database last, so that what is under way can finish."""
        for process in reversed(self.processes.values()):
            await process.stop()
        if self.postgres is not None:
            await asyncio.to_thread(self.postgres.stop)

    def _start_postgres(self) -> str:
        """The administrator's URL: of the database that TOLLGATE_DATABASE_URL names, else of one of our own."""
        named = os.environ.get("TOLLGATE_DATABASE_URL")
        if named:
            return named
        self.postgres = EmbeddedPostgres(self.state.postgres)
        self.postgres.create_database(DATABASE)
        return self.postgres.url(DATABASE)

    def _migrate(self, admin_url: str) -> None:
        command = [sys.executable, "-m", "services.ledger.storage.migrate"]
        environment = os.environ | {"TOLLGATE_DATABASE_ADMIN_URL": admin_url}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        self.state.log("migrate").write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            raise StackError((done.stderr.strip().splitlines() or ["migration failed"])[-1])
        with psycopg.connect(admin_url) as connection:
            for role in ("tollgate_ledger", "tollgate_reporting"):
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(self.secrets.database_password)))

    def _url_as(self, role: str, admin_url: str) -> str:
        url = make_url(admin_url).set(username=role, password=self.secrets.database_password)
        return url.render_as_string(hide_password=False)

    def _all_processes(self, admin_url: str) -> list[Process]:
        at, secrets = self.addresses, self.secrets
        ledger = {
            "TOLLGATE_DATABASE_URL": self._url_as("tollgate_ledger", admin_url),
            "GATEWAY_API_KEY": os.environ.get("GATEWAY_API_KEY") or secrets.operator_key,
            "TOLLGATE_PROVIDER_KEY_PUBLIC": secrets.provider_key_public,
            "TOLLGATE_WEBHOOK_KEY": secrets.webhook_key,
            # Whoever tries webhooks out has a receiver on this machine.
            "TOLLGATE_WEBHOOK_HTTP_ALLOWED": "true",
            "TOLLGATE_WEBHOOK_PRIVATE_ALLOWED": "true",
        }
        reporting = {"TOLLGATE_DATABASE_URL": self._url_as("tollgate_reporting", admin_url)}
        return [
            self._python("ledger", "services.ledger", ledger, answers_grpc_health(at.ledger)),
            self._python("reporting", "services.reporting", reporting, answers_grpc_health(at.reporting)),
            self._python("simulator", "development.simulator", {}, answers_http(f"http://{at.simulator}/health")),
            self.router("router", at, self.state.spool),
            self._envoy(),
        ]

    def router(self, name: str, at: Addresses, spool: Path, environment: Mapping[str, str] | None = None) -> Process:
        """A router that listens where `at` says; besides the stack's own, for whoever wants another beside it."""
        own = {
            "TOLLGATE_ROUTER_HTTP_ADDRESS": at.router_http,
            "TOLLGATE_ROUTER_GRPC_ADDRESS": at.router_grpc,
            "TOLLGATE_ROUTER_METRICS_ADDRESS": at.router_metrics,
            "TOLLGATE_ROUTER_TRUSTED_PROXIES": "1",  # the front door's Envoy
            "TOLLGATE_SPOOL_DIRECTORY": str(spool),
            "TOLLGATE_PROVIDER_KEY_PRIVATE": self.secrets.provider_key_private,
            **self._providers(),
        }
        overrides = {**self._router_overrides, **(environment or {})}
        is_ready = all_of(answers_grpc_health(at.router_grpc), answers_http(f"http://{at.router_http}/health"))
        return self._python(name, "services.router", own, is_ready, overrides)

    def _providers(self) -> dict[str, str]:
        """The user's own providers, where a file names them; the simulated one otherwise."""
        if os.environ.get("TOLLGATE_PROVIDERS_FILE"):
            return {}
        path = self.state.directory / "providers.toml"
        path.write_text(PROVIDERS.read_text().replace("127.0.0.1:8099", self.addresses.simulator))
        return {"TOLLGATE_PROVIDERS_FILE": str(path), "SIMULATOR_API_KEY": "simulated"}

    def _python(
        self,
        name: str,
        module: str,
        own: Mapping[str, str],
        is_ready: Callable[[], Awaitable[bool]],
        overrides: Mapping[str, str] | None = None,
    ) -> Process:
        environment = {**self._common_environment(), **own, **self._overrides, **(overrides or {})}
        command = [sys.executable, "-m", module]
        return Process(name, command, environment, self.state.log(name), is_ready)

    def _common_environment(self) -> dict[str, str]:
        at = self.addresses
        return {
            "TOLLGATE_SERVICE_TOKEN": self.secrets.service_token,
            "TOLLGATE_REFLECTION": "true",
            "TOLLGATE_LEDGER_ADDRESS": at.ledger,
            "TOLLGATE_LEDGER_METRICS_ADDRESS": at.ledger_metrics,
            "TOLLGATE_REPORTING_ADDRESS": at.reporting,
            "TOLLGATE_REPORTING_METRICS_ADDRESS": at.reporting_metrics,
            "TOLLGATE_SIMULATOR_ADDRESS": at.simulator,
        }

    def _envoy(self) -> Process:
        configuration = self.state.envoy_configuration
        configuration.write_text(render(ROOT / "gateway-envoy" / "envoy.yaml", self.addresses))
        envoy = Path(sys.executable).parent / "envoy"
        command = [str(envoy), "--disable-hot-restart", "--log-level", "warning", "-c", str(configuration)]
        is_ready = answers_http(f"http://127.0.0.1:{port_of(self.addresses.admin)}/ready")
        return Process("Envoy", command, {}, self.state.log("envoy"), is_ready)


async def _timed(what: str, report: Report, work: Awaitable[T]) -> T:
    start = time.monotonic()
    result = await work
    report(what, time.monotonic() - start)
    return result
