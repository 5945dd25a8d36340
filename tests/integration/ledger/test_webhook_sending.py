"""What waits is delivered by one ledger at a time, and what cannot be signed says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from services.ledger.alerts.alert_rules import AlertDeliveryState, AlertRule
from services.ledger.alerts.webhook_client import WebhookClient
from services.ledger.alerts.webhook_secrets import WebhookSecrets
from services.ledger.alerts.webhook_sending import DELIVERIES_AT_ONCE_OF_ORGANIZATION, WebhookSender
from services.ledger.alerts.webhook_urls import WebhookPolicy
from services.ledger.storage.writer import DatabaseWriter
from tests.alert_builders import a_rule, add_alert, add_rule, rows_of
from tests.conftest import Database
from tests.usage_builders import add_organization, now_in_utc
from tests.webhook_receiver import HOLD, Receiver, a_receiver

SECRETS = WebhookSecrets(bytes(32))
OPEN = WebhookPolicy(http_allowed=True, private_allowed=True)
TIMEOUT = timedelta(seconds=10)


@asynccontextmanager
async def a_sender(database: Database, secrets: WebhookSecrets | None = SECRETS) -> AsyncIterator[None]:
    """Delivers until the block ends."""
    writer, client = DatabaseWriter(database.ledger_url), WebhookClient(OPEN, TIMEOUT)
    sender = WebhookSender(writer, client, secrets, clock=now_in_utc, timeout=TIMEOUT)
    following = asyncio.create_task(sender.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await sender.close()


def a_heard_rule(database: Database, receiver: Receiver) -> AlertRule:
    rule = a_rule(add_organization(database), webhook_url=receiver.url)
    sealed = SECRETS.seal("whsec_AAAA", organization_id=rule.organization_id, alert_rule_id=rule.alert_rule_id)
    return add_rule(database, rule, sealed)


async def tried(database: Database, rule: AlertRule) -> dict[str, Any]:
    """Its one delivery, once something became of a try."""
    async with asyncio.timeout(30):
        while True:
            (delivery,) = rows_of(database, "alert_delivery", rule)
            if delivery["error"] or delivery["state"] != AlertDeliveryState.PENDING:
                return delivery
            await asyncio.sleep(0.05)


async def test_ledgers_side_by_side_deliver_each_alert_once(database: Database) -> None:
    with a_receiver() as receiver:
        rules = [a_heard_rule(database, receiver) for _ in range(8)]
        ids = {str(add_alert(database, rule).alert_id) for rule in rules for _ in range(3)}
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(a_sender(database))
            await asyncio.to_thread(receiver.wait_for, len(ids))

    assert sorted(one.id for one in receiver.received) == sorted(ids)
    assert all(one.is_signed_with("whsec_AAAA") for one in receiver.received)
    assert {delivery["state"] for rule in rules for delivery in rows_of(database, "alert_delivery", rule)} == {
        AlertDeliveryState.DELIVERED
    }


async def test_of_one_organization_a_few_are_under_way_at_once(database: Database) -> None:
    with a_receiver(*[HOLD] * 9) as receiver:
        rule = a_heard_rule(database, receiver)
        for _ in range(9):
            add_alert(database, rule)
        async with a_sender(database):
            await asyncio.to_thread(receiver.wait_for, DELIVERIES_AT_ONCE_OF_ORGANIZATION)
            await asyncio.sleep(1.5)
            under_way = len(receiver.received)
            receiver.released.set()
            await asyncio.to_thread(receiver.wait_for, 9)

    assert under_way == DELIVERIES_AT_ONCE_OF_ORGANIZATION


@pytest.mark.parametrize(
    ("secrets", "error"),
    [
        (WebhookSecrets(bytes([1]) * 32), "the secret cannot be read; rotate it"),
        (None, "the operator has taken the key for webhooks away"),
    ],
)
async def test_what_cannot_be_signed_is_not_sent_and_says_why(
    database: Database, secrets: WebhookSecrets | None, error: str
) -> None:
    with a_receiver() as receiver:
        rule = a_heard_rule(database, receiver)
        add_alert(database, rule)
        async with a_sender(database, secrets):
            delivery = await tried(database, rule)

    assert (delivery["state"], delivery["error"]) == (AlertDeliveryState.PENDING, error)
    assert receiver.received == []
