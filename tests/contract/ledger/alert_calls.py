"""Rules that fire, the calls that make them, and what their receivers hear."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.contract.ledger.accounts_server import INSIDE, Metadata
from tests.usage_builders import a_record, a_request
from tests.webhook_receiver import AWAITED_SECONDS, Received, Receiver
from tollgate.ledger.v1 import alert_service_pb2 as wire

FAILED = {"outcome": 2, "status": 503, "error_type": "unavailable"}


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` sees once that is something."""
    deadline = time.monotonic() + AWAITED_SECONDS
    while not (seen := await look()):
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)
    return seen


async def deliveries(receiver: Receiver, count: int) -> list[Received]:
    return await asyncio.to_thread(receiver.wait_for, count)


async def make_rule(alerts: Any, key: Metadata, **fields: Any) -> wire.CreateAlertRuleResponse:
    """One that fires when more than half of the calls fail."""
    values: dict[str, Any] = {"metric": wire.ALERT_METRIC_ERROR_RATE, "threshold": "50", "window_minutes": 5}
    made: wire.CreateAlertRuleResponse = await alerts.CreateAlertRule(
        wire.CreateAlertRuleRequest(**values | fields), metadata=key
    )
    return made


async def call(usage: Any, organization_id: str, count: int = 1, **fields: Any) -> None:
    records = [a_record(organization_id, **fields) for _ in range(count)]
    await usage.RecordUsage(a_request(*records), metadata=INSIDE, timeout=10)
