"""200 callers on 4 workers against a cent: no balance falls below zero and no limit is overspent, whoever is killed.

One seed in ordinary runs; `TOLLGATE_OVERSPEND_SEEDS=50` makes it fifty.
"""

import asyncio
import os
import random
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg
import pytest
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from development.addresses import Addresses
from development.stack import DATABASE, Stack
from development.state import State
from services.common.money import PICO_PER_USD
from services.ledger.leases.leases import LEASE_SECONDS
from tests.faults.process_tree import send, tree_of

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(600)]
SEEDS = range(int(os.environ.get("TOLLGATE_OVERSPEND_SEEDS", "1")))
CALLER_COUNT = 200
WORKER_COUNT = 4
CREDIT_USD = "0.01"
# For what is retained of some dozens of calls.
STORAGE_USD = "0.0002"
# When everything is up again, callers go on until some have found that the credit is spent, for so long at most.
QUIET_SECONDS_MAX = 60.0
REFUSED_ENOUGH = 50
# What nobody uses is given back, and what a lost worker held is free when another has shipped its log.
FREE_AGAIN_SECONDS = LEASE_SECONDS
MODELS = ("gpt-4o-mini", "gpt-4o")
# Calls are of so many kinds, for a cache to know some of them.
CALL_KIND_COUNT = 100

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Books:
    """What the books say of one organization, in pico-USD."""

    # The least that it ever had, less what it owed, over every entry of the journal.
    least: int
    receivable: int
    worth: int
    held: int
    records: int


@dataclass(frozen=True, slots=True)
class Customer:
    organization_id: str
    # Callers take any.
    keys: tuple[str, ...]
    # That of the last of them, where it is limited.
    limited_key_id: str = ""
    project_id: str = "web"


class Scene:
    """The stack, with four workers that lease credit."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self.stack = stack
        self.client = client
        # The router whose workers were last killed, and those it had before.
        self._supervisor: int | None = None
        self._first_workers: set[int] = set()

    async def post(self, path: str, key: str, project_id: str, body: Json) -> tuple[int, Json]:
        """0 when nobody answered."""
        request = self.client.post(self.stack.url + path).header("authorization", f"Bearer {key}")
        try:
            response = await request.header("x-tollgate-project", project_id).body_json(body).build().send()
            text = await response.text()
        except PyreqwestError:
            return 0, {}
        return response.status, {"text": text}

    async def must(self, path: str, body: Json, method: str = "POST") -> Json:
        request = self.client.request(method, self.stack.url + path)
        request = request.header("authorization", f"Bearer {self.stack.secrets.operator_key}").body_json(body)
        response = await request.build().send()
        answer: Json = await response.json()
        assert response.status == 200, answer
        return answer

    async def customer(self) -> Customer:
        created = await self.must("/v1/organizations", {"display_name": "Overspend"})
        own = {"organization_id": created["organization"]["organization_id"]}
        await self.must("/v1/projects", {**own, "project_id": "web"})
        key = await self.must("/v1/api_keys", own)
        return Customer(own["organization_id"], (key["secret"],))

    async def limited_customer(self) -> Customer:
        """With plenty of credit, and a second key."""
        customer = await self.customer()
        await self.grant(customer, "1")
        key = await self.must("/v1/api_keys", {"organization_id": customer.organization_id})
        return Customer(customer.organization_id, (*customer.keys, key["secret"]), key["api_key"]["api_key_id"])

    async def retaining_customer(self) -> Customer:
        """With a key of its own, and a cache: its calls cost no more than to retain them does."""
        customer = await self.customer()
        own = {"organization_id": customer.organization_id}
        await self.must(f"/v1/organizations/{customer.organization_id}", {"payload_retained": True}, "PATCH")
        settings = {"mode": "PROJECT_MODE_OWN_KEYS", "settings": {"cache_seconds": 60}}
        await self.must("/v1/projects", {**own, "project_id": "own", **settings})
        await self.must("/v1/provider_keys", {**own, "provider": "openai", "secret": "sk-own-good"})
        return replace(customer, project_id="own")

    async def grant(self, customer: Customer, usd: str = CREDIT_USD) -> None:
        body = {"organization_id": customer.organization_id, "grant_id": secrets.token_hex(8), "amount": usd}
        await self.must("/v1/credit_grants", body)

    async def limit(self, customer: Customer, usd: Decimal, key_usd: Decimal) -> None:
        """All its keys together, and the last by itself."""
        for path, amount in (
            (f"/v1/organizations/{customer.organization_id}", usd),
            (f"/v1/api_keys/{customer.limited_key_id}", key_usd),
        ):
            limit = {"amount": str(amount), "period": "SPENDING_PERIOD_TOTAL"}
            await self.must(path, {"spending_limit": limit}, "PATCH")

    def spent_usd(self, customer: Customer) -> tuple[Decimal, Decimal]:
        """By all keys, and by the limited one; what leases hold of it included."""
        query = """
            SELECT COALESCE((SELECT sum(charged_pico) FROM ledger.key_spending WHERE organization_id = %(id)s), 0)
                   + COALESCE((SELECT sum(held_pico) FROM ledger.lease WHERE organization_id = %(id)s), 0),
                   COALESCE((SELECT sum(charged_pico) FROM ledger.key_spending WHERE api_key_id = %(key)s), 0)
                   + COALESCE((SELECT sum(held_pico) FROM ledger.lease WHERE api_key_id = %(key)s), 0)
        """
        values = {"id": customer.organization_id, "key": customer.limited_key_id}
        with self.connect() as connection:
            row = connection.execute(query, values).fetchone()
        assert row is not None
        return Decimal(row[0]) / PICO_PER_USD, Decimal(row[1]) / PICO_PER_USD

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        assert self.stack.postgres is not None
        return psycopg.connect(self.stack.postgres.url(DATABASE), autocommit=True)

    def books(self, customer: Customer) -> Books:
        query = """
            SELECT (SELECT min(balance_pico) FROM ledger.journal_entry WHERE organization_id = %(id)s),
                   (SELECT COALESCE(sum(amount_pico), 0) FROM ledger.balance
                     WHERE organization_id = %(id)s AND account = 3),
                   (SELECT COALESCE(sum(amount_pico), 0) FROM ledger.balance
                     WHERE organization_id = %(id)s AND account BETWEEN 1 AND 4),
                   (SELECT COALESCE(sum(held_pico), 0) FROM ledger.lease WHERE organization_id = %(id)s),
                   (SELECT count(*) FROM ledger.usage_record WHERE organization_id = %(id)s)
        """
        with self.connect() as connection:
            row = connection.execute(query, {"id": customer.organization_id}).fetchone()
        assert row is not None
        return Books(*(int(value) for value in row))

    def retained(self, customer: Customer) -> Counter[bool]:
        """How many calls were retained, and how many not, that an own key or the cache answered."""
        query = """
            SELECT payload_retained, count(*)
              FROM ledger.usage_record
             WHERE organization_id = %s AND outcome = 1
             GROUP BY payload_retained
        """
        with self.connect() as connection:
            return Counter(dict(connection.execute(query, [customer.organization_id]).fetchall()))

    async def kill_worker(self, dice: random.Random) -> None:
        """One of the four; the others go on, and another takes its place.

        Not one that has just taken another's: a router ends when a replacement dies within five seconds.
        """
        pid = self.stack.processes["router"].pid
        workers = tree_of(pid)[1:] if pid is not None else []
        if self._supervisor != pid:
            self._supervisor, self._first_workers = pid, set(workers)
        if victims := [worker for worker in workers if worker in self._first_workers]:
            send([dice.choice(victims)], SIGKILL)

    async def kill(self, name: str) -> None:
        process = self.stack.processes[name]
        pids = tree_of(process.pid) if process.pid is not None else []
        send(pids, SIGKILL)
        await process.wait()
        await asyncio.sleep(0.2)
        await process.start()


def a_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="tollgate-"))
    directory.chmod(0o755)  # as root, PostgreSQL runs as another user
    return directory


@pytest.fixture(scope="module")
async def scene() -> AsyncIterator[Scene]:
    directory = a_directory()
    settings = {"TOLLGATE_ROUTER_WORKERS": str(WORKER_COUNT)}
    stack = Stack(State(directory), Addresses.free(), {"TOLLGATE_LOG_LEVEL": "WARNING"}, settings)
    try:
        await stack.start()
        async with ClientBuilder().timeout(timedelta(seconds=30)).build() as client:
            yield Scene(stack, client)
    finally:
        await stack.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Callers:
    """200 of them, and what they were answered."""

    def __init__(self, scene: Scene, customer: Customer, seed: int) -> None:
        self._scene = scene
        self._customer = customer
        self._is_over = False
        # By status; 0 for no answer.
        self.seen: Counter[int] = Counter()
        self._tasks = [
            asyncio.create_task(self._call_on(random.Random(f"{seed} {number}"))) for number in range(CALLER_COUNT)
        ]

    async def stop_when(self, refused: Callable[[], int]) -> int:
        """Ends when so many more have found that nothing is left, or should have long ago; how many there must be."""
        enough = refused() + REFUSED_ENOUGH
        await until(lambda: refused() >= enough, QUIET_SECONDS_MAX)
        self._is_over = True
        await asyncio.gather(*self._tasks)
        return enough

    def refused(self) -> int:
        """How many were told so."""
        return self.seen[402]

    async def _call_on(self, dice: random.Random) -> None:
        while not self._is_over:
            call = a_call(random.Random(dice.randrange(CALL_KIND_COUNT)))
            key = dice.choice(self._customer.keys)
            status, _ = await self._scene.post("/v1/chat/completions", key, self._customer.project_id, call)
            self.seen[status] += 1
            # Whoever is refused rests a little.
            await asyncio.sleep(0 if status == 200 else dice.uniform(0.1, 0.4))


def a_call(dice: random.Random) -> Json:
    """Allowed more tokens than it takes, as most are."""
    tokens = dice.randint(1, 60)
    words = " ".join(["word"] * dice.randint(1, 200))
    prompt = f"{words} simulate:tokens={tokens} simulate:delay_ms={dice.randint(0, 400)}"
    return {
        "model": dice.choice(MODELS),
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": dice.randint(tokens, 100),
        "stream": dice.random() < 0.3,
    }


async def make_trouble(scene: Scene, allow_more: Callable[[], Awaitable[None]], dice: random.Random) -> None:
    """Kills two workers, the router and the ledger, and allows another cent, so that there is something to spend."""
    victims = ["worker", "router", "worker", "ledger"]
    dice.shuffle(victims)
    for victim in victims:
        await asyncio.sleep(dice.uniform(0.3, 1.2))
        if victim == "worker":
            await scene.kill_worker(dice)
        else:
            await scene.kill(victim)
        await asyncio.sleep(dice.uniform(0.0, 0.4))
        await allow_more()


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_balance_never_falls_below_zero(seed: int, scene: Scene) -> None:
    customer = await scene.customer()
    await scene.grant(customer)

    callers = Callers(scene, customer, seed)
    await make_trouble(scene, lambda: scene.grant(customer), random.Random(seed))
    refused = await callers.stop_when(callers.refused)
    await until(lambda: scene.books(customer).held == 0, FREE_AGAIN_SECONDS)
    books = scene.books(customer)

    print(f"seed {seed}: answers {dict(sorted(callers.seen.items()))}, {books}")
    assert books.least >= 0
    assert books.receivable == 0
    assert books.worth >= 0
    assert books.held == 0
    assert callers.seen[200] > 20
    assert callers.seen[402] >= refused


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_retained_never_takes_the_balance_below_zero(seed: int, scene: Scene) -> None:
    customer = await scene.retaining_customer()
    await scene.grant(customer, STORAGE_USD)

    callers = Callers(scene, customer, seed)
    await make_trouble(scene, lambda: scene.grant(customer, STORAGE_USD), random.Random(seed))
    enough = await callers.stop_when(lambda: scene.retained(customer)[False])
    await until(lambda: scene.books(customer).held == 0, FREE_AGAIN_SECONDS)
    books, retained = scene.books(customer), scene.retained(customer)

    print(f"seed {seed}: answers {dict(sorted(callers.seen.items()))}, {books}, retained {dict(retained)}")
    assert books.least >= 0
    assert books.receivable == 0
    assert books.held == 0
    assert callers.seen[402] == 0
    assert retained[True] > 20
    assert retained[False] >= enough


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_spending_limit_is_overspent(seed: int, scene: Scene) -> None:
    customer = await scene.limited_customer()
    limit_usd, key_limit_usd = Decimal(CREDIT_USD), Decimal(CREDIT_USD) * 3 / 4
    await scene.limit(customer, limit_usd, key_limit_usd)
    kept = []

    async def allow_more() -> None:
        nonlocal limit_usd, key_limit_usd
        spent_usd, spent_by_key_usd = scene.spent_usd(customer)
        kept.append(spent_usd <= limit_usd and spent_by_key_usd <= key_limit_usd)
        limit_usd, key_limit_usd = limit_usd + Decimal(CREDIT_USD), key_limit_usd + Decimal(CREDIT_USD) * 3 / 4
        await scene.limit(customer, limit_usd, key_limit_usd)

    callers = Callers(scene, customer, seed)
    await make_trouble(scene, allow_more, random.Random(seed))
    refused = await callers.stop_when(callers.refused)
    await until(lambda: scene.books(customer).held == 0, FREE_AGAIN_SECONDS)
    spent_usd, spent_by_key_usd = scene.spent_usd(customer)

    print(
        f"seed {seed}: answers {dict(sorted(callers.seen.items()))}, spent {spent_usd}, {spent_by_key_usd} by one key"
    )
    assert kept == [True] * 4
    assert spent_usd <= limit_usd
    assert spent_by_key_usd <= key_limit_usd
    assert scene.books(customer).held == 0
    assert callers.seen[200] > 20
    assert callers.seen[402] >= refused


async def until(holds: Callable[[], bool], seconds_max: float) -> None:
    """Returns when it holds, or when it should have long ago."""
    deadline = time.monotonic() + seconds_max
    while not holds() and time.monotonic() < deadline:  # noqa: ASYNC110 what is waited for tells nobody
        await asyncio.sleep(0.2)
