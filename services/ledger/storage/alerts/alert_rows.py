"""Alert rules and alerts, domain ↔ rows."""

from collections.abc import Mapping
from typing import Any

from services.ledger.alerts.alert_rules import (
    Alert,
    AlertDelivery,
    AlertDeliveryState,
    AlertRule,
    AlertStanding,
    AlertTerms,
)
from services.ledger.alerts.alert_states import AlertComparison, AlertMetric, AlertState

Row = Mapping[Any, Any]
DELIVERY_PREFIX = "delivery_"
_STANDING = ("state_time", "value", "evaluate_time", "evaluation_error", "due_time")
_RULE = ("alert_rule_id", "organization_id", "project_id", "display_name", "paused", "webhook_url", "create_time")
_ALERT = (
    "alert_id",
    "alert_rule_id",
    "organization_id",
    "project_id",
    "display_name",
    "value",
    "request_count",
    "window_start_time",
    "window_end_time",
    "create_time",
)


def alert_rule_to_row(rule: AlertRule) -> dict[str, Any]:
    """Without its secret."""
    return {
        **{name: getattr(rule, name) for name in (*_RULE, "update_time")},
        **{name: getattr(rule.standing, name) for name in _STANDING},
        "state": int(rule.standing.state),
        **_terms_to_row(rule.terms),
    }


def alert_rule_from_row(row: Row) -> AlertRule:
    return AlertRule(
        **{name: row[name] for name in (*_RULE, "update_time")},
        terms=_terms_from_row(row),
        standing=AlertStanding(state=AlertState(row["state"]), **{name: row[name] for name in _STANDING}),
    )


def alert_to_row(alert: Alert) -> dict[str, Any]:
    """Without its delivery."""
    return {
        **{name: getattr(alert, name) for name in _ALERT},
        "state": int(alert.state),
        **_terms_to_row(alert.terms),
    }


def alert_from_row(row: Row) -> Alert:
    """From a row with the columns of its delivery, null where it has none."""
    return Alert(
        **{name: row[name] for name in _ALERT},
        terms=_terms_from_row(row),
        state=AlertState(row["state"]),
        delivery=_delivery_from_row(row),
    )


def _delivery_from_row(row: Row) -> AlertDelivery | None:
    if row["delivery_state"] is None:
        return None
    return AlertDelivery(
        state=AlertDeliveryState(row["delivery_state"]),
        attempt_count=row["delivery_attempt_count"],
        attempt_time=row["delivery_attempt_time"],
        next_attempt_time=row["delivery_next_attempt_time"],
        error=row["delivery_error"],
    )


def _terms_to_row(terms: AlertTerms) -> dict[str, Any]:
    return {
        "metric": int(terms.metric),
        "percentile": terms.percentile,
        "comparison": int(terms.comparison),
        "threshold": terms.threshold,
        "window_minutes": terms.window_minutes,
        "request_count_min": terms.request_count_min,
    }


def _terms_from_row(row: Row) -> AlertTerms:
    return AlertTerms(
        metric=AlertMetric(row["metric"]),
        percentile=row["percentile"],
        comparison=AlertComparison(row["comparison"]),
        threshold=row["threshold"],
        window_minutes=row["window_minutes"],
        request_count_min=row["request_count_min"],
    )
