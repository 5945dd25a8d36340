"""Whatever is killed, every finished call is in the figures once."""

import asyncio
from typing import Any

from development.stack import Stack

CALLS_BEFORE, CALLS_WHILE_DOWN, CALLS_AFTER = 10, 20, 10
# Fewer than a page of a list holds.
CALLS_BEFORE_KILL = 200


async def call(customer: Any) -> str:
    answer = await asyncio.to_thread(customer.api.chat, "Hello")
    assert answer.status == 200, answer
    return str(answer.headers["x-tollgate-request-id"])


async def test_calls_go_on_while_the_ledger_is_dead_and_are_billed_once_when_it_is_back(
    stack: Stack, customer: Any
) -> None:
    ledger = stack.processes["ledger"]

    async def make(count: int) -> list[str]:
        return await asyncio.gather(*(call(customer) for _ in range(count)))

    ids = await make(CALLS_BEFORE)
    under_way = asyncio.create_task(make(CALLS_BEFORE))
    await ledger.kill()
    ids += await under_way
    ids += await make(CALLS_WHILE_DOWN)
    await ledger.start()
    ids += await make(CALLS_AFTER)

    day = await asyncio.to_thread(customer.api.today, len(ids))
    listed = await asyncio.to_thread(customer.api.get, "/v1/requests?limit=500")
    assert day["requestCount"] == len(ids) == listed.body["total"]
    assert sorted(row["id"] for row in listed.body["requests"]) == sorted(ids)


async def test_a_router_killed_under_load_loses_no_call_that_a_client_saw_finished(stack: Stack, customer: Any) -> None:
    router = stack.processes["router"]
    seen: list[str] = []

    async def call_until_it_dies() -> None:
        while True:
            try:
                seen.append(await call(customer))
            except Exception:
                return

    callers = [asyncio.create_task(call_until_it_dies()) for _ in range(8)]
    async with asyncio.timeout(30):
        while len(seen) < CALLS_BEFORE_KILL:  # noqa: ASYNC110 what is waited for tells nobody
            await asyncio.sleep(0.01)
    await router.kill()
    await asyncio.gather(*callers)
    await router.start()

    for request_id in seen:
        await asyncio.to_thread(customer.api.call, request_id)
    listed = await asyncio.to_thread(customer.api.get, "/v1/requests?limit=500&status=200")
    ids = [row["id"] for row in listed.body["requests"]]
    assert len(ids) == len(set(ids))
    assert set(seen) <= set(ids)
