"""Alert rules and alerts: what they are and what makes a rule valid. A value that exists is valid."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from uuid import UUID

from services.common.errors import InvalidRequestError
from services.ledger.accounts.accounts import DISPLAY_NAME_MAX, nothing_named, require_name, require_text
from services.ledger.accounts.audit import Settings
from services.ledger.alerts.alert_states import AlertComparison, AlertCondition, AlertMetric, AlertState
from services.ledger.alerts.webhook_urls import WebhookUrl
from services.ledger.wire_values import decimal_to_text

RULES_MAX = 100
WINDOW_MINUTES_MIN = 5
WINDOW_MINUTES_MAX = 30 * 24 * 60
# Durations are read from single calls.
LATENCY_WINDOW_MINUTES_MAX = 24 * 60
REQUEST_COUNT_MIN_MAX = 1_000_000_000
PERCENTILE_MAX = 99

_THRESHOLD = re.compile(r"\d{1,15}(\.\d{1,12})?", re.ASCII)


class AlertDeliveryState(IntEnum):
    """What became of a delivery. The numbers are those of `tollgate.ledger.v1.AlertDeliveryState`."""

    PENDING = 1
    DELIVERED = 2
    GIVEN_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTerms:
    """What a rule measures, and what it holds that against."""

    metric: AlertMetric
    # None unless the metric is LATENCY.
    percentile: int | None
    comparison: AlertComparison
    # In the unit of the metric.
    threshold: Decimal
    window_minutes: int
    request_count_min: int

    def __post_init__(self) -> None:
        is_latency = self.metric is AlertMetric.LATENCY
        _require_percentile(self.percentile, is_latency)
        if self.metric is AlertMetric.ERROR_RATE and self.threshold > 100:
            raise InvalidRequestError("threshold", "must be at most 100 per cent for the error rate")
        longest = LATENCY_WINDOW_MINUTES_MAX if is_latency else WINDOW_MINUTES_MAX
        _require_between("window_minutes", self.window_minutes, WINDOW_MINUTES_MIN, longest)
        _require_between("request_count_min", self.request_count_min, 0, REQUEST_COUNT_MIN_MAX)

    @property
    def condition(self) -> AlertCondition:
        return AlertCondition(
            comparison=self.comparison, threshold=self.threshold, request_count_min=self.request_count_min
        )

    @property
    def settings(self) -> Settings:
        return {
            "metric": self.metric.name,
            "percentile": self.percentile,
            "comparison": self.comparison.name,
            "threshold": decimal_to_text(self.threshold),
            "window_minutes": self.window_minutes,
            "request_count_min": self.request_count_min,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlertRule:
    """A rule to be."""

    # As the caller named them; empty for their own.
    organization_id: str
    project_id: str
    display_name: str
    terms: AlertTerms
    paused: bool
    webhook_url: WebhookUrl | None

    def __post_init__(self) -> None:
        require_text("display_name", self.display_name, least=0, most=DISPLAY_NAME_MAX)
        if self.project_id:
            require_name("project_id", self.project_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStanding:
    """How a rule stands."""

    state: AlertState
    # Since when it stands so.
    state_time: datetime
    # What was measured last, as it is shown. None where nothing was.
    value: Decimal | None
    # None before the first evaluation.
    evaluate_time: datetime | None
    # Why the last evaluation failed. Empty when it did not.
    evaluation_error: str
    # When it is evaluated next, unless it is paused.
    due_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """A condition on figures, and how it stands."""

    alert_rule_id: UUID
    organization_id: UUID
    # None for the calls of the whole organization.
    project_id: str | None
    display_name: str
    terms: AlertTerms
    paused: bool
    # None where nothing is delivered.
    webhook_url: str | None
    standing: AlertStanding
    create_time: datetime
    update_time: datetime

    @property
    def settings(self) -> Settings:
        return {
            "project_id": self.project_id,
            "display_name": self.display_name,
            **self.terms.settings,
            "paused": self.paused,
            # The rest of a URL may be as good as a password.
            "webhook_host": None if self.webhook_url is None else WebhookUrl.of(self.webhook_url).host,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRuleChange:
    """What to change of a rule. None leaves it as it is."""

    display_name: str | None
    threshold: Decimal | None
    window_minutes: int | None
    request_count_min: int | None
    paused: bool | None
    webhook_url: WebhookUrl | None
    clear_webhook: bool
    rotate_webhook_secret: bool

    def __post_init__(self) -> None:
        changes = (self.display_name, self.threshold, self.window_minutes, self.request_count_min, self.paused)
        if all(one is None for one in (*changes, self.webhook_url)) and not (
            self.clear_webhook or self.rotate_webhook_secret
        ):
            raise nothing_named(
                "display_name, threshold, window_minutes, request_count_min, paused, webhook_url or "
                "rotate_webhook_secret"
            )
        if self.display_name is not None:
            require_text("display_name", self.display_name, least=0, most=DISPLAY_NAME_MAX)

    def applied_to(self, rule: AlertRule, now: datetime) -> AlertRule:
        """The rule as changed, due at once. Raises InvalidRequestError for what does not go with the rest of it."""
        webhook_url = rule.webhook_url if self.webhook_url is None else self.webhook_url.text
        changed = replace(
            rule,
            display_name=rule.display_name if self.display_name is None else self.display_name,
            terms=self._terms(rule.terms),
            paused=rule.paused if self.paused is None else self.paused,
            webhook_url=None if self.clear_webhook else webhook_url,
        )
        if self.rotate_webhook_secret and changed.webhook_url is None:
            raise InvalidRequestError("rotate_webhook_secret", "needs a webhook; set webhook_url too")
        if changed == rule and not self.rotate_webhook_secret:
            return rule
        # The clock of the machine that made the rule may have been ahead of this one's.
        return replace(changed, update_time=max(now, rule.create_time), standing=replace(rule.standing, due_time=now))

    def makes_secret(self, rule: AlertRule) -> bool:
        """Whether the rule gets a new secret: its first webhook does."""
        return self.rotate_webhook_secret or (rule.webhook_url is None and self.webhook_url is not None)

    def _terms(self, terms: AlertTerms) -> AlertTerms:
        return replace(
            terms,
            threshold=terms.threshold if self.threshold is None else self.threshold,
            window_minutes=terms.window_minutes if self.window_minutes is None else self.window_minutes,
            request_count_min=terms.request_count_min if self.request_count_min is None else self.request_count_min,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """How an alert fares on its way to the webhook."""

    state: AlertDeliveryState
    attempt_count: int
    # None before the first try.
    attempt_time: datetime | None
    # None when it is not tried any more.
    next_attempt_time: datetime | None
    # Why the last try failed. Empty when it did not.
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One change of a rule's state, with the rule as it was then."""

    alert_id: UUID
    alert_rule_id: UUID
    organization_id: UUID
    project_id: str | None
    display_name: str
    terms: AlertTerms
    state: AlertState
    value: Decimal
    request_count: int
    window_start_time: datetime
    window_end_time: datetime
    create_time: datetime
    # None where the rule had no webhook.
    delivery: AlertDelivery | None = None


def threshold_from_text(text: str) -> Decimal:
    """Raises InvalidRequestError for anything but a decimal number from 0."""
    if not _THRESHOLD.fullmatch(text):
        raise InvalidRequestError(
            "threshold", "must be a decimal number from 0 of at most 15 digits and 12 decimals, such as 2.5"
        )
    return Decimal(text)


def _require_percentile(percentile: int | None, is_latency: bool) -> None:
    if is_latency:
        _require_between("percentile", percentile or 0, 1, PERCENTILE_MAX)
    elif percentile is not None:
        raise InvalidRequestError("percentile", "is only for the latency; leave it out")


def _require_between(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequestError(field, f"must be from {least} to {most}, got {value}")
