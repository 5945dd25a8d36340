"""A real router and a real simulated provider, each a process, and a ledger over a real channel."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pyreqwest.client import ClientBuilder

from development.addresses import free_address
from services.common.sealed_secrets import new_key_settings, read_public_key
from services.common.settings import Environment
from tests.integration.router.fake_ledger import SERVICE_TOKEN, FakeLedger
from tests.integration.router.processes import Router, all_listen, running

# One router serves all tests, and what fails in one is not to be avoided in the next.
POLICIES = """
[defaults]
cooldown_seconds = 0
"""

PROVIDERS = """
[[providers]]
name = "openai"
format = "openai"
base_url = "http://{simulator}/openai/v1"
api_key_variable = "SIMULATOR_API_KEY"
models = ["gpt-4o", "gpt-4o-mini", "o3"]

[[providers]]
name = "azure"
format = "openai"
base_url = "http://{simulator}/azure/v1"
api_key_variable = "SIMULATOR_API_KEY"
[providers.models]
"gpt-4o" = {{ upstream = "deployment-7", output_tokens_max = 5 }}

[[providers]]
name = "away"
format = "openai"
base_url = "http://{nobody}/v1"
api_key_variable = "SIMULATOR_API_KEY"
models = ["gpt-away", "gpt-rescued"]

[[providers]]
name = "groq"
format = "openai"
base_url = "http://{simulator}/groq/v1"
api_key_variable = "SIMULATOR_API_KEY"
idle_timeout_seconds = 1
when_client_leaves = "cancel"
models = ["gpt-rescued", "llama"]

[[providers]]
name = "wrongkey"
format = "openai"
base_url = "http://{simulator}/wrongkey/v1"
api_key_variable = "WRONG_API_KEY"
models = ["gpt-refused"]

[[providers]]
name = "openai-more"
format = "openai"
base_url = "http://{simulator}/more/v1"
api_key_variable = "SIMULATOR_API_KEY"
models = ["gpt-5-mini", "claude-or-gpt"]

[[providers]]
name = "openai-media"
format = "openai"
base_url = "http://{simulator}/media/v1"
api_key_variable = "SIMULATOR_API_KEY"
[providers.models]
"text-embedding-3-small" = {{ upstream = "text-embedding-3-small", endpoints = ["embeddings"] }}
"gpt-image-1" = {{ upstream = "gpt-image-1", endpoints = ["image_generations"] }}
"dall-e-3" = {{ upstream = "dall-e-3", endpoints = ["image_generations"] }}

[[providers]]
name = "azure-openai"
format = "openai"
base_url = "http://{simulator}/openai/deployments/{{model}}"
api_key_header = "api-key"
api_key_variable = "SIMULATOR_API_KEY"
query = {{ "api-version" = "2024-10-21" }}
models = {{ "gpt-azure" = "deployment-8" }}

[[providers]]
name = "anthropic"
format = "anthropic"
base_url = "http://{simulator}/anthropic/v1"
api_key_variable = "SIMULATOR_API_KEY"
[providers.models]
"claude-sonnet" = {{ upstream = "claude-sonnet-latest", output_tokens_max = 64000 }}
"claude-or-gpt" = "claude-or-gpt"

[[providers]]
name = "google"
format = "gemini"
base_url = "http://{simulator}/google/v1beta"
api_key_variable = "SIMULATOR_API_KEY"
thinking = "budget"
models = ["gemini-flash"]
"""

# Runs what a test does on a loop of its own.
Run = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]
RUN_SECONDS_MAX = 20
StartRouter = Callable[..., AbstractAsyncContextManager[Router]]


@pytest.fixture(scope="session")
def key_settings() -> Mapping[str, str]:
    return new_key_settings()


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = free_address()
    log = tmp_path_factory.mktemp("simulator") / "log"
    with running("development.simulator", {"TOLLGATE_SIMULATOR_ADDRESS": address}, f"http://{address}/health", log):
        yield address


@pytest.fixture(scope="session")
async def ledger(key_settings: Mapping[str, str]) -> AsyncIterator[FakeLedger]:
    ledger = FakeLedger(free_address(), read_public_key(Environment(key_settings)))
    await ledger.start()
    yield ledger
    await ledger.stop()


@pytest.fixture(scope="session")
def start_router(simulator: str, ledger: FakeLedger, key_settings: Mapping[str, str]) -> StartRouter:
    @asynccontextmanager
    async def start(directory: Path, *, policies: str = POLICIES, **environment: str) -> AsyncIterator[Router]:
        http, grpc = free_address(), free_address()
        worker_count = int(environment.get("TOLLGATE_ROUTER_WORKERS", "1"))
        # One for each worker.
        metrics = free_address(worker_count)
        providers = directory / "providers.toml"
        providers.write_text(policies + PROVIDERS.format(simulator=simulator, nobody=free_address()))
        log = directory / "log"
        variables = {
            "TOLLGATE_SERVICE_TOKEN": SERVICE_TOKEN,
            "TOLLGATE_LEDGER_ADDRESS": ledger.address,
            "TOLLGATE_ROUTER_HTTP_ADDRESS": http,
            "TOLLGATE_ROUTER_GRPC_ADDRESS": grpc,
            "TOLLGATE_ROUTER_METRICS_ADDRESS": metrics,
            "TOLLGATE_SPOOL_DIRECTORY": str(directory / "spool"),
            "TOLLGATE_PROVIDERS_FILE": str(providers),
            "SIMULATOR_API_KEY": "simulated",
            "WRONG_API_KEY": "not-the-right-one",
            **key_settings,
            **environment,
        }
        with running("services.router", variables, f"http://{http}/health", log) as process:
            await all_listen(process, http, worker_count)
            async with ClientBuilder().no_proxy().build() as client:
                yield Router(process, f"http://{http}", grpc, f"http://{metrics}/metrics", log, client)

    return start


@pytest.fixture(scope="session")
async def router(start_router: StartRouter, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    async with start_router(tmp_path_factory.mktemp("router")) as router:
        yield router


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """On both event loops: production has uvloop."""

    async def in_time(work: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            await work

    async def run(work: Coroutine[Any, Any, None]) -> None:
        await asyncio.to_thread(request.param, in_time(work))

    return run


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
