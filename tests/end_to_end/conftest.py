"""The whole stack, started once, as `make run` starts it, and customers to call it."""

import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.response import SyncResponse

from development.addresses import Addresses
from development.stack import Stack
from development.state import State

# A finished call is in every figure within two seconds; the machine may be busy with other tests.
VISIBLE_SECONDS = 20
_numbers = itertools.count(1)

Json = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests that share the stack run in one process."""
    for item in items:
        if "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("stack"))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Api:
    """The REST surface as the bearer of one key sees it."""

    url: str
    key: str | None
    # Making one takes longer than most answers.
    client: SyncClient = field(default_factory=lambda: SyncClientBuilder().build(), repr=False, compare=False)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: Json | bytes, **headers: str) -> Answer:
        return self.send("POST", path, body, headers)

    def patch(self, path: str, body: Json | bytes, **headers: str) -> Answer:
        return self.send("PATCH", path, body, headers)

    def delete(self, path: str, **headers: str) -> Answer:
        return self.send("DELETE", path, None, headers)

    def chat(self, prompt: str, *, model: str = "gpt-4o", project: str = "web", **more: object) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
        return self.post("/v1/chat/completions", body, x_tollgate_project=project)

    def send(self, method: str, path: str, body: Json | bytes | None, headers: Mapping[str, str]) -> Answer:
        request = self.client.request(method, self.url + path)
        if self.key is not None:
            request = request.header("authorization", f"Bearer {self.key}")
        for name, value in headers.items():
            request = request.header(name.replace("_", "-"), value)
        if isinstance(body, bytes):
            request = request.body_bytes(body)
        elif body is not None:
            request = request.body_json(body)
        return _answer(request.build().send())

    def balance(self) -> Decimal:
        return Decimal(self.get("/v1/balance").body["balance"])

    def call(self, request_id: str) -> Json:
        """One call as reporting shows it, once it does."""
        found: Json = eventually(
            lambda: self.get(f"/v1/requests/{request_id}"), lambda answer: answer.status == 200
        ).body
        return found

    def today(self, expected_calls: int) -> Json:
        """Today's activity, once it has so many calls."""

        def has_them(answer: Answer) -> bool:
            days = answer.body["activity"]
            return bool(days) and days[-1]["requestCount"] >= expected_calls

        day: Json = eventually(lambda: self.get("/activity?days=1"), has_them).body["activity"][-1]
        return day


def _answer(response: SyncResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    is_json = headers.get("content-type", "").partition(";")[0] == "application/json"
    # The client's own parser is not exact: a double may come out as its neighbour.
    return Answer(response.status, headers, orjson.loads(response.text()) if is_json else response.text())


def eventually(look: Callable[[], Answer], is_there: Callable[[Answer], bool]) -> Answer:
    """What `look` sees once it is there. Fails with the last thing seen."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not is_there(seen := look()):
        assert time.monotonic() < deadline, f"not within {VISIBLE_SECONDS} s; last seen: {seen}"
        time.sleep(0.05)
    return seen


@dataclass(frozen=True, slots=True)
class Customer:
    """An organization of one test's own: projects `web` (credits) and `lab` (own keys first), and a key for all."""

    organization_id: str
    api: Api


@contextmanager
def open_directory() -> Iterator[Path]:
    """One that others may enter: as root, PostgreSQL runs as another user, whom pytest's own directories keep out."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def state() -> Iterator[State]:
    with open_directory() as directory:
        yield State(directory)


@pytest.fixture
def state_directory() -> Iterator[Path]:
    """For a stack of a test's own."""
    with open_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def new_state() -> Iterator[State]:
    """For a module that has a stack of its own."""
    with open_directory() as directory:
        yield State(directory)


@pytest.fixture(scope="session")
async def stack(state: State) -> AsyncIterator[Stack]:
    stack = Stack(state, Addresses.free(), {"TOLLGATE_ALERT_INTERVAL_SECONDS": "1"})
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()


@pytest.fixture(scope="session")
def operator(stack: Stack) -> Api:
    return Api(stack.url, stack.secrets.operator_key)


@pytest.fixture
def nobody(stack: Stack) -> Api:
    return Api(stack.url, None)


@pytest.fixture(scope="session")
def make_customer(stack: Stack, operator: Api) -> Callable[..., Customer]:
    def make(*, credit: str = "10", payload_retained: bool = False, display_name: str = "") -> Customer:
        def create(path: str, body: Json) -> Json:
            answer = operator.post(path, body)
            assert answer.status == 200, answer
            made: Json = answer.body
            return made

        display_name = display_name or f"Customer {next(_numbers)}"
        body = {"display_name": display_name, "payload_retained": payload_retained}
        organization_id = create("/v1/organizations", body)["organization"]["organization_id"]
        own = {"organization_id": organization_id}
        create("/v1/projects", {**own, "project_id": "web"})
        create("/v1/projects", {**own, "project_id": "lab", "mode": "PROJECT_MODE_HYBRID"})
        create("/v1/provider_keys", {**own, "provider": "openai", "secret": "sk-own-customer"})
        if credit != "0":
            create("/v1/credit_grants", {**own, "grant_id": "first", "amount": credit})
        key = create("/v1/api_keys", own)["secret"]
        return Customer(organization_id, Api(stack.url, key))

    return make


@pytest.fixture
def customer(make_customer: Callable[..., Customer]) -> Customer:
    return make_customer()
