"""Changes to alert rules. Each change and its line in the audit log are one transaction."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError, NotFoundError
from services.ledger.accounts.audit import Settings
from services.ledger.accounts.change_log import ChangeLog
from services.ledger.accounts.reach import one_organization, uuid_in_path
from services.ledger.alerts.alert_rules import RULES_MAX, AlertRule, AlertRuleChange, AlertStanding, NewAlertRule
from services.ledger.alerts.alert_states import AlertState
from services.ledger.alerts.webhook_secrets import KEY_SETTING, WebhookSecrets, new_webhook_secret
from services.ledger.alerts.webhook_urls import WebhookPolicy, WebhookUrl
from services.ledger.errors import TooManyAlertRulesError
from services.ledger.storage.accounts.accounts import AccountStore
from services.ledger.storage.alerts.alerts import AlertStore
from services.ledger.storage.transactions import transaction


class AlertKeeper:
    """Creates, changes and deletes alert rules on behalf of a caller. Lives as long as the service."""

    def __init__(
        self,
        database: AsyncEngine,
        secrets: WebhookSecrets | None,
        policy: WebhookPolicy,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        """Without secrets there are no webhooks."""
        self._database = database
        self._secrets = secrets
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._log = ChangeLog(clock=clock, new_id=new_id)

    async def create(self, caller: Caller, new: NewAlertRule) -> tuple[AlertRule, str]:
        """The rule, and what its deliveries are signed with; empty where there are none.

        Raises NotFoundError for an unknown organization or project, TooManyAlertRulesError, ForbiddenError for what is
        not the caller's, and InvalidRequestError for a webhook that is not allowed.
        """
        made = self._made(caller, new)
        secret = ""
        if new.webhook_url is not None:
            self._require_allowed(new.webhook_url)
            secret = new_webhook_secret()
        async with transaction(self._database) as connection:
            await _require_place(connection, made)
            store = AlertStore(connection)
            if await store.count_rules(made.organization_id) >= RULES_MAX:
                raise TooManyAlertRulesError(RULES_MAX)
            await store.add_rule(made, self._sealed(secret, made))
            await self._log_rule(connection, caller, "alert_rule.create", made, after=made.settings)
        return made, secret

    async def update(
        self, caller: Caller, organization_id: str, alert_rule_id: str, change: AlertRuleChange
    ) -> tuple[AlertRule, str]:
        """The rule as it is since, and its new secret where it has one.

        Raises NotFoundError for a rule that is missing or not the caller's, and InvalidRequestError.
        """
        async with transaction(self._database) as connection:
            store = AlertStore(connection)
            before = await find_own(store, caller, organization_id, alert_rule_id, lock=True)
            after = change.applied_to(before, self._clock())
            if change.webhook_url is not None:
                self._require_allowed(change.webhook_url)
            if after == before:
                return before, ""
            secret = new_webhook_secret() if change.makes_secret(before) else ""
            await self._change(store, after, secret)
            await self._log_rule(
                connection,
                caller,
                "alert_rule.update",
                after,
                before=before.settings,
                after={**after.settings, **_unshown(before, after, secret)},
            )
        return after, secret

    async def delete(self, caller: Caller, organization_id: str, alert_rule_id: str) -> None:
        """Raises NotFoundError for a rule that is missing or not the caller's."""
        async with transaction(self._database) as connection:
            store = AlertStore(connection)
            rule = await find_own(store, caller, organization_id, alert_rule_id, lock=True)
            await store.delete_rule(rule)
            await self._log_rule(connection, caller, "alert_rule.delete", rule, before=rule.settings)

    def _made(self, caller: Caller, new: NewAlertRule) -> AlertRule:
        now = self._clock()
        return AlertRule(
            alert_rule_id=self._new_id(),
            organization_id=one_organization(caller, new.organization_id),
            project_id=caller.project(new.project_id),
            display_name=new.display_name,
            terms=new.terms,
            paused=new.paused,
            webhook_url=None if new.webhook_url is None else new.webhook_url.text,
            standing=AlertStanding(
                state=AlertState.OK,
                state_time=now,
                value=None,
                evaluate_time=None,
                evaluation_error="",
                due_time=now,
            ),
            create_time=now,
            update_time=now,
        )

    async def _change(self, store: AlertStore, after: AlertRule, secret: str) -> None:
        sealed_secret = self._sealed(secret, after)
        if sealed_secret is not None:
            await store.change_secret(after, sealed_secret)
        if after.webhook_url is None:
            await store.delete_waiting(after)
        await store.change_rule(after)

    def _require_allowed(self, webhook_url: WebhookUrl) -> None:
        if self._secrets is None:
            raise _no_webhooks()
        webhook_url.require_allowed(self._policy)

    def _sealed(self, secret: str, rule: AlertRule) -> bytes | None:
        if not secret:
            return None
        if self._secrets is None:
            raise _no_webhooks()
        return self._secrets.seal(secret, organization_id=rule.organization_id, alert_rule_id=rule.alert_rule_id)

    async def _log_rule(
        self,
        connection: AsyncConnection,
        caller: Caller,
        action: str,
        rule: AlertRule,
        *,
        before: Settings | None = None,
        after: Settings | None = None,
    ) -> None:
        await self._log.write(
            connection,
            caller,
            action,
            str(rule.alert_rule_id),
            organization_id=rule.organization_id,
            before=before,
            after=after,
        )


def _unshown(before: AlertRule, after: AlertRule, secret: str) -> Settings:
    """That something changed which the log must not show."""
    changed = {"webhook_url": before.webhook_url != after.webhook_url, "webhook_secret": bool(secret)}
    return {name: "changed" for name, is_changed in changed.items() if is_changed}


def _no_webhooks() -> InvalidRequestError:
    return InvalidRequestError("webhook_url", f"is not possible here: the operator has set no {KEY_SETTING}")


async def find_own(
    store: AlertStore, caller: Caller, organization_id: str, alert_rule_id: str, *, lock: bool = False
) -> AlertRule:
    """Raises NotFoundError for a rule that is missing or not the caller's."""
    own_id = one_organization(caller, organization_id)
    rule_id = uuid_in_path("alert rule", alert_rule_id)
    found = await store.find_rule(own_id, rule_id, lock=lock)
    if found is None or caller.project_id not in (None, found.project_id):
        raise NotFoundError(f"alert rule {rule_id}")
    return found


async def _require_place(connection: AsyncConnection, rule: AlertRule) -> None:
    """Raises NotFoundError unless the organization, which it locks, and the project exist to be called for."""
    store = AccountStore(connection)
    if await store.find_organization(rule.organization_id, lock=True) is None:
        raise NotFoundError(f"organization {rule.organization_id}")
    if rule.project_id is not None:
        project = await store.find_project(rule.organization_id, rule.project_id)
        if project is None or project.archive_time is not None:
            raise NotFoundError(f"project {rule.project_id}")
