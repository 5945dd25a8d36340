"""Delivers alerts to webhooks, at least once each. Every ledger does; what one has claimed the others leave to it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from services.common.errors import UnavailableError
from services.ledger.alerts.convert_alerts import alert_event
from services.ledger.alerts.webhook_client import WebhookClient, WebhookFailedError
from services.ledger.alerts.webhook_secrets import SecretSealedOtherwiseError, WebhookSecrets
from services.ledger.alerts.webhooks import next_attempt_time, signature
from services.ledger.metrics import WEBHOOK_DELIVERIES, WEBHOOK_LAG_SECONDS, WEBHOOKS_WAITING
from services.ledger.storage.alerts import webhook_outbox
from services.ledger.storage.alerts.webhook_outbox import Claimed
from services.ledger.storage.writer import DatabaseWriter

LOOK_SECONDS = 1.0
DELIVERIES_AT_ONCE = 16
# So that one whose receiver hangs does not hold up the others.
DELIVERIES_AT_ONCE_OF_ORGANIZATION = 2
# Beyond the time a request may take: for the database, before and after.
LOST_MARGIN = timedelta(seconds=3)

log = logging.getLogger("tollgate.ledger.webhooks")


class WebhookSender:
    """Lives as long as the service, and so does its writer, which is its own."""

    def __init__(
        self,
        writer: DatabaseWriter,
        client: WebhookClient,
        secrets: WebhookSecrets | None,
        *,
        clock: Callable[[], datetime],
        timeout: timedelta,
    ) -> None:
        self._writer = writer
        self._client = client
        self._secrets = secrets
        self._clock = clock
        self._lost_after = timeout + LOST_MARGIN
        self._running: dict[asyncio.Task[None], UUID] = {}

    async def follow(self) -> None:
        """Looks every second for what is to be delivered, for ever."""
        while True:
            try:
                await self._start_due()
                await self._measure()
            except UnavailableError as error:
                log.warning("webhooks wait for the database: %s", error.message)
            except Exception:
                # Recording must go on, whatever is wrong here; what waits shows in the metrics.
                log.exception("webhooks failed")
            await self._rest()

    async def close(self) -> None:
        """Finishes what was begun, which takes no longer than a request may."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._lost_after.total_seconds())
        self._writer.close()

    async def _start_due(self) -> None:
        while len(self._running) < DELIVERIES_AT_ONCE and (claimed := await self._claim()) is not None:
            task = asyncio.create_task(self._deliver(claimed))
            self._running[task] = claimed.alert.organization_id
            task.add_done_callback(self._running.pop)

    async def _claim(self) -> Claimed | None:
        counts = Counter(self._running.values())
        busy = [one for one, count in counts.items() if count >= DELIVERIES_AT_ONCE_OF_ORGANIZATION]
        now = self._clock()
        return await self._writer.run(
            lambda connection: webhook_outbox.claim_next(connection, now, now + self._lost_after, busy)
        )

    async def _deliver(self, claimed: Claimed) -> None:
        """One try, and what became of it."""
        try:
            error = await self._try(claimed)
            await self._write_down(claimed, error)
        except UnavailableError as unavailable:
            log.warning("what became of a delivery is forgotten; it is repeated: %s", unavailable.message)
        except Exception:
            log.exception("a delivery failed", extra={"alert_id": str(claimed.alert.alert_id)})

    async def _try(self, claimed: Claimed) -> str:
        """Why it failed; empty when it did not."""
        alert = claimed.alert
        if claimed.webhook_url is None or claimed.sealed_secret is None:
            return "the rule has no webhook any more"
        if self._secrets is None:
            return "the operator has taken the key for webhooks away"
        try:
            secret = self._secrets.open(
                claimed.sealed_secret, organization_id=alert.organization_id, alert_rule_id=alert.alert_rule_id
            )
            body, webhook_id, timestamp = alert_event(alert), str(alert.alert_id), int(self._clock().timestamp())
            headers = {
                "content-type": "application/json",
                "webhook-id": webhook_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(secret, webhook_id, timestamp, body),
            }
            await self._client.post(claimed.webhook_url, headers, body)
        except SecretSealedOtherwiseError:
            return "the secret cannot be read; rotate it"
        except WebhookFailedError as error:
            return str(error)
        return ""

    async def _write_down(self, claimed: Claimed, error: str) -> None:
        details = {"alert_id": str(claimed.alert.alert_id), "attempt_count": claimed.attempt_count, "error": error}
        if not error:
            await self._writer.run(lambda connection: webhook_outbox.delivered(connection, claimed))
            WEBHOOK_DELIVERIES.labels("delivered").inc()
            log.info("alert delivered", extra=details)
            return
        again = next_attempt_time(claimed.attempt_count, self._clock(), claimed.alert.create_time)
        await self._writer.run(lambda connection: webhook_outbox.failed(connection, claimed, error, again))
        WEBHOOK_DELIVERIES.labels("given_up" if again is None else "failed").inc()
        log.warning("alert not delivered", extra=details)

    async def _measure(self) -> None:
        waiting = await self._writer.run(webhook_outbox.waiting)
        WEBHOOKS_WAITING.set(waiting.alert_count)
        due = waiting.next_attempt_time
        WEBHOOK_LAG_SECONDS.set(0 if due is None else max(0, (self._clock() - due).total_seconds()))

    async def _rest(self) -> None:
        """Until something may be done again: a second, or less where a place becomes free."""
        if self._running:
            await asyncio.wait(self._running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(LOOK_SECONDS)
