"""From a call that fails to the webhook that hears of it, with the ledger as it is wired."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.contract.ledger.accounts_server import OPERATOR, Metadata
from tests.contract.ledger.alert_calls import FAILED, call, deliveries, eventually, make_rule
from tests.contract.ledger.whole_ledger import WholeLedger, a_whole_ledger
from tests.webhook_receiver import HANG, a_receiver
from tollgate.ledger.v1 import alert_service_pb2 as wire

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[WholeLedger]:
    async with a_whole_ledger(database) as running:
        yield running


async def alerts_of(alerts: Any, key: Metadata, **filters: str) -> list[wire.Alert]:
    listed = await alerts.ListAlerts(wire.ListAlertsRequest(**filters), metadata=key)
    return list(listed.alerts)


async def settled(alerts: Any, key: Metadata, state: int) -> wire.Alert:
    """The one alert, once its delivery is where it should be."""

    async def look() -> wire.Alert | None:
        found = await alerts_of(alerts, key)
        return found[0] if found and found[0].delivery.state == state else None

    alert: wire.Alert = await eventually(look)
    return alert


async def failed(ledger: WholeLedger, key: Metadata, error: str) -> wire.Alert:
    """The one alert, once a try has failed for that reason."""

    async def look() -> wire.Alert | None:
        found = await alerts_of(ledger.alerts, key)
        return found[0] if found and found[0].delivery.error == error else None

    alert: wire.Alert = await eventually(look)
    return alert


def try_again_now(database: Database, organization_id: str) -> None:
    """As if the wait between two tries were over."""
    with psycopg.connect(database.ledger_url) as connection:
        connection.execute(
            "UPDATE ledger.alert_delivery SET next_attempt_time = now() WHERE organization_id = %s AND state = 1",
            (organization_id,),
        )


async def test_a_receiver_hears_that_a_rule_fires_and_that_it_ceases_to(ledger: WholeLedger) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver() as receiver:
        made = await make_rule(ledger.alerts, key, display_name="Errors", webhook_url=receiver.url)
        await call(ledger.usage, acme, 3, **FAILED)
        await deliveries(receiver, 1)
        await call(ledger.usage, acme, 3)
        firing, resolved = await deliveries(receiver, 2)

    assert all(one.is_signed_with(made.webhook_secret) for one in (firing, resolved))
    assert (firing.event["type"], resolved.event["type"]) == ("alert.firing", "alert.resolved")
    assert firing.headers["content-type"] == "application/json"
    assert firing.id == firing.event["data"]["alert_id"] != resolved.id
    data = firing.event["data"]
    assert (data["state"], data["metric"], data["value"]) == ("ALERT_STATE_FIRING", "ALERT_METRIC_ERROR_RATE", "100")
    assert (data["threshold"], data["request_count"], data["window_minutes"]) == ("50", 3, 5)
    assert (data["display_name"], data["organization_id"], data["project_id"]) == ("Errors", acme, "")
    assert data["create_time"] == firing.event["timestamp"]
    assert b'"request_count":3.0' not in firing.body
    assert "delivery" not in data
    assert resolved.event["data"]["value"] == "50"


async def test_what_became_of_a_rule_is_listed_with_what_became_of_its_delivery(ledger: WholeLedger) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver() as receiver:
        rule = (await make_rule(ledger.alerts, key, webhook_url=receiver.url)).alert_rule
        await call(ledger.usage, acme, 3, **FAILED)
        alert = await settled(ledger.alerts, key, wire.ALERT_DELIVERY_STATE_DELIVERED)
    shown = await ledger.alerts.GetAlertRule(wire.GetAlertRuleRequest(alert_rule_id=rule.alert_rule_id), metadata=key)

    assert (alert.alert_rule_id, alert.state, alert.value) == (rule.alert_rule_id, wire.ALERT_STATE_FIRING, "100")
    assert (alert.delivery.attempt_count, alert.delivery.error) == (1, "")
    assert alert.delivery.HasField("attempt_time")
    assert not alert.delivery.HasField("next_attempt_time")
    assert (shown.alert_rule.state, shown.alert_rule.value) == (wire.ALERT_STATE_FIRING, "100")
    assert shown.alert_rule.state_time == alert.create_time
    assert shown.alert_rule.evaluation_error == ""


async def test_alerts_are_listed_from_the_newest_page_by_page_and_filtered(ledger: WholeLedger) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    rule = (await make_rule(ledger.alerts, key)).alert_rule

    async def count_is(count: int) -> list[wire.Alert] | None:
        found = await alerts_of(ledger.alerts, key)
        return found if len(found) == count else None

    for count, fields in ((1, FAILED), (2, {}), (3, FAILED)):
        await call(ledger.usage, acme, 3 * count, **fields)
        found = await eventually(lambda count=count: count_is(count))  # type: ignore[misc]
    page = await ledger.alerts.ListAlerts(wire.ListAlertsRequest(limit="2"), metadata=key)
    rest = await alerts_of(ledger.alerts, key, limit="2", page_token=page.next_page_token)
    moment = found[1].create_time.ToJsonString()

    firing, resolved = wire.ALERT_STATE_FIRING, wire.ALERT_STATE_RESOLVED
    assert [alert.state for alert in found] == [firing, resolved, firing]
    assert [*page.alerts, *rest] == found
    assert not found[0].HasField("delivery")
    assert await alerts_of(ledger.alerts, key, state="resolved") == [found[1]]
    assert await alerts_of(ledger.alerts, key, alert_rule_id=rule.alert_rule_id) == found
    assert await alerts_of(ledger.alerts, key, alert_rule_id=UNKNOWN) == []
    assert await alerts_of(ledger.alerts, key, from_time=moment) == found[:2]
    assert await alerts_of(ledger.alerts, key, to_time=moment) == found[2:]
    assert await alerts_of(ledger.alerts, OPERATOR, organization_id=acme) == found
    assert await alerts_of(ledger.alerts, OPERATOR, alert_rule_id=rule.alert_rule_id) == found


async def test_alerts_are_nobody_elses_and_stay_when_the_rule_is_deleted(ledger: WholeLedger) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    key, other = await ledger.key_of(acme), await ledger.key_of(globex)
    rule = (await make_rule(ledger.alerts, key)).alert_rule
    await call(ledger.usage, acme, 3, **FAILED)
    found = await eventually(lambda: alerts_of(ledger.alerts, key))

    request = wire.DeleteAlertRuleRequest(alert_rule_id=rule.alert_rule_id)
    await ledger.alerts.DeleteAlertRule(request, metadata=key)

    assert await alerts_of(ledger.alerts, key) == found
    assert await alerts_of(ledger.alerts, other) == []
    assert await alerts_of(ledger.alerts, other, alert_rule_id=rule.alert_rule_id) == []


async def test_alerts_are_seen_as_long_as_the_organization_sees_its_calls(
    ledger: WholeLedger, database: Database
) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    await make_rule(ledger.alerts, key)
    await call(ledger.usage, acme, 3, **FAILED)
    await eventually(lambda: alerts_of(ledger.alerts, key))

    with psycopg.connect(database.admin_url) as connection:
        # Of the Free plan, three days.
        connection.execute(
            "UPDATE ledger.alert SET create_time = now() - interval '3 days 1 second' WHERE organization_id = %s",
            (acme,),
        )

    assert await alerts_of(ledger.alerts, key) == []


async def test_a_receiver_that_fails_first_gets_the_same_again_under_the_same_id(
    ledger: WholeLedger, database: Database
) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver(503, 302) as receiver:
        made = await make_rule(ledger.alerts, key, webhook_url=receiver.url)
        await call(ledger.usage, acme, 3, **FAILED)
        await deliveries(receiver, 1)

        waiting = await failed(ledger, key, "the answer was 503")
        try_again_now(database, acme)
        await failed(ledger, key, "the answer was 302")
        try_again_now(database, acme)
        tries = await deliveries(receiver, 3)
        alert = await settled(ledger.alerts, key, wire.ALERT_DELIVERY_STATE_DELIVERED)

    assert (waiting.delivery.state, waiting.delivery.error) == (
        wire.ALERT_DELIVERY_STATE_PENDING,
        "the answer was 503",
    )
    wait = waiting.delivery.next_attempt_time.ToDatetime() - waiting.delivery.attempt_time.ToDatetime()
    assert 5 <= wait.total_seconds() < 10
    assert {one.id for one in tries} == {alert.alert_id}
    assert len({one.body for one in tries}) == 1
    assert all(one.is_signed_with(made.webhook_secret) for one in tries)
    assert alert.delivery.attempt_count == 3


async def test_what_is_too_old_is_given_up(ledger: WholeLedger, database: Database) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver(500, 500) as receiver:
        await make_rule(ledger.alerts, key, webhook_url=receiver.url)
        await call(ledger.usage, acme, 3, **FAILED)
        await deliveries(receiver, 1)
        await failed(ledger, key, "the answer was 500")
        with psycopg.connect(database.admin_url) as connection:
            connection.execute(
                "UPDATE ledger.alert SET create_time = now() - interval '1 day' WHERE organization_id = %s", (acme,)
            )
        try_again_now(database, acme)
        alert = await settled(ledger.alerts, key, wire.ALERT_DELIVERY_STATE_GIVEN_UP)

    assert (alert.delivery.attempt_count, alert.delivery.error) == (2, "the answer was 500")
    assert not alert.delivery.HasField("next_attempt_time")


async def test_after_a_rotation_everything_is_signed_with_the_new_secret(
    ledger: WholeLedger, database: Database
) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver(503) as receiver:
        made = await make_rule(ledger.alerts, key, webhook_url=receiver.url)
        await call(ledger.usage, acme, 3, **FAILED)
        await deliveries(receiver, 1)
        await failed(ledger, key, "the answer was 503")
        request = wire.UpdateAlertRuleRequest(alert_rule_id=made.alert_rule.alert_rule_id, rotate_webhook_secret=True)
        rotated = await ledger.alerts.UpdateAlertRule(request, metadata=key)
        try_again_now(database, acme)
        first, second = await deliveries(receiver, 2)

    assert first.is_signed_with(made.webhook_secret)
    assert second.is_signed_with(rotated.webhook_secret)
    assert not second.is_signed_with(made.webhook_secret)


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_without_its_webhook_nothing_of_a_rule_is_delivered_any_more(
    ledger: WholeLedger, database: Database, is_deleted: bool
) -> None:
    acme = await ledger.organization()
    key = await ledger.key_of(acme)
    with a_receiver(503) as receiver:
        rule_id = (await make_rule(ledger.alerts, key, webhook_url=receiver.url)).alert_rule.alert_rule_id
        await call(ledger.usage, acme, 3, **FAILED)
        await deliveries(receiver, 1)
        if is_deleted:
            await ledger.alerts.DeleteAlertRule(wire.DeleteAlertRuleRequest(alert_rule_id=rule_id), metadata=key)
        else:
            request = wire.UpdateAlertRuleRequest(alert_rule_id=rule_id, webhook_url="")
            await ledger.alerts.UpdateAlertRule(request, metadata=key)
        (alert,) = await alerts_of(ledger.alerts, key)
        with psycopg.connect(database.ledger_url) as connection:
            left = connection.execute(
                "SELECT count(*) FROM ledger.alert_delivery WHERE organization_id = %s", (acme,)
            ).fetchone()

    assert left == (0,)
    assert not alert.HasField("delivery")


async def test_a_receiver_that_hangs_holds_up_nobody_else(ledger: WholeLedger) -> None:
    slow, quick = await ledger.organization(), await ledger.organization()
    slow_key, quick_key = await ledger.key_of(slow), await ledger.key_of(quick)
    with a_receiver(*[HANG] * 40) as hanging, a_receiver() as receiver:
        for _ in range(20):
            await make_rule(ledger.alerts, slow_key, webhook_url=hanging.url)
        await call(ledger.usage, slow, 3, **FAILED)
        await deliveries(hanging, 1)
        await make_rule(ledger.alerts, quick_key, webhook_url=receiver.url)
        await call(ledger.usage, quick, 3, **FAILED)
        await deliveries(receiver, 1)

        assert len(hanging.received) < 20
