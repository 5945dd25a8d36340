"""Alert rules and alerts, wire ↔ domain."""

from dataclasses import replace

import orjson
from google.protobuf.json_format import MessageToDict

from services.common.errors import InvalidRequestError
from services.common.parameters import optional_time, optional_uuid
from services.ledger.alerts.alert_rules import (
    Alert,
    AlertDelivery,
    AlertRule,
    AlertRuleChange,
    AlertTerms,
    NewAlertRule,
    threshold_from_text,
)
from services.ledger.alerts.alert_states import AlertComparison, AlertMetric, AlertState
from services.ledger.alerts.webhook_urls import WebhookUrl
from services.ledger.convert_values import choice, named_choice, optional_time_to_proto, time_to_proto
from services.ledger.storage.alerts.alerts import AlertFilter, AlertRuleFilter
from services.ledger.wire_values import decimal_to_text
from tollgate.ledger.v1 import alert_service_pb2 as wire

_STATES = {state.name.lower(): state for state in AlertState}


def new_alert_rule_from_proto(request: wire.CreateAlertRuleRequest) -> NewAlertRule:
    return NewAlertRule(
        organization_id=request.organization_id,
        project_id=request.project_id,
        display_name=request.display_name,
        terms=AlertTerms(
            metric=named_choice("metric", AlertMetric, request.metric),
            percentile=request.percentile or None,
            comparison=choice("comparison", AlertComparison, request.comparison, default=AlertComparison.ABOVE),
            threshold=threshold_from_text(request.threshold),
            window_minutes=request.window_minutes,
            request_count_min=request.request_count_min,
        ),
        paused=request.paused,
        webhook_url=WebhookUrl.of(request.webhook_url) if request.webhook_url else None,
    )


def alert_rule_change_from_proto(request: wire.UpdateAlertRuleRequest) -> AlertRuleChange:
    names_url = request.HasField("webhook_url")
    return AlertRuleChange(
        display_name=request.display_name if request.HasField("display_name") else None,
        threshold=threshold_from_text(request.threshold) if request.HasField("threshold") else None,
        window_minutes=request.window_minutes if request.HasField("window_minutes") else None,
        request_count_min=request.request_count_min if request.HasField("request_count_min") else None,
        paused=request.paused if request.HasField("paused") else None,
        webhook_url=WebhookUrl.of(request.webhook_url) if request.webhook_url else None,
        clear_webhook=names_url and not request.webhook_url,
        rotate_webhook_secret=request.rotate_webhook_secret,
    )


def alert_rule_to_proto(rule: AlertRule) -> wire.AlertRule:
    terms, standing = rule.terms, rule.standing
    return wire.AlertRule(
        alert_rule_id=str(rule.alert_rule_id),
        organization_id=str(rule.organization_id),
        project_id=rule.project_id or "",
        display_name=rule.display_name,
        metric=_metric_to_proto(terms.metric),
        percentile=terms.percentile or 0,
        comparison=_comparison_to_proto(terms.comparison),
        threshold=decimal_to_text(terms.threshold),
        window_minutes=terms.window_minutes,
        request_count_min=terms.request_count_min,
        paused=rule.paused,
        webhook_url=rule.webhook_url or "",
        state=_state_to_proto(standing.state),
        state_time=time_to_proto(standing.state_time),
        value="" if standing.value is None else decimal_to_text(standing.value),
        evaluate_time=optional_time_to_proto(standing.evaluate_time),
        evaluation_error=standing.evaluation_error,
        create_time=time_to_proto(rule.create_time),
        update_time=time_to_proto(rule.update_time),
    )


def alert_rule_filter_from_proto(request: wire.ListAlertRulesRequest) -> AlertRuleFilter:
    """Of all organizations and projects: which of them the caller may see is for others to say."""
    state = _state_from_text(request.state, tuple(_STATES))
    return AlertRuleFilter(organization_id=None, project_id=None, state=state)


def alert_filter_from_proto(request: wire.ListAlertsRequest) -> AlertFilter:
    """Of all organizations and projects: which of them the caller may see is for others to say."""
    from_time, to_time = optional_time("from", request.from_time), optional_time("to", request.to_time)
    if from_time is not None and to_time is not None and to_time < from_time:
        raise InvalidRequestError("to", f"must not be before from ({request.from_time}), got '{request.to_time}'")
    return AlertFilter(
        organization_id=None,
        project_id=None,
        alert_rule_id=optional_uuid("alert_rule_id", request.alert_rule_id),
        state=_state_from_text(request.state, ("firing", "resolved")),
        from_time=from_time,
        to_time=to_time,
    )


def alert_to_proto(alert: Alert) -> wire.Alert:
    terms = alert.terms
    return wire.Alert(
        alert_id=str(alert.alert_id),
        alert_rule_id=str(alert.alert_rule_id),
        organization_id=str(alert.organization_id),
        project_id=alert.project_id or "",
        display_name=alert.display_name,
        state=_state_to_proto(alert.state),
        metric=_metric_to_proto(terms.metric),
        percentile=terms.percentile or 0,
        comparison=_comparison_to_proto(terms.comparison),
        threshold=decimal_to_text(terms.threshold),
        value=decimal_to_text(alert.value),
        request_count=alert.request_count,
        window_minutes=terms.window_minutes,
        window_start_time=time_to_proto(alert.window_start_time),
        window_end_time=time_to_proto(alert.window_end_time),
        create_time=time_to_proto(alert.create_time),
        delivery=None if alert.delivery is None else _delivery_to_proto(alert.delivery),
    )


def alert_event(alert: Alert) -> bytes:
    """What is delivered to a webhook: the same bytes each time."""
    data = MessageToDict(
        alert_to_proto(replace(alert, delivery=None)),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    data["request_count"] = alert.request_count  # printed without a point, as the gateway does
    event = {"type": f"alert.{alert.state.name.lower()}", "timestamp": data["create_time"], "data": data}
    return orjson.dumps(event)


def _delivery_to_proto(delivery: AlertDelivery) -> wire.AlertDelivery:
    return wire.AlertDelivery(
        state=wire.AlertDeliveryState.Value(f"ALERT_DELIVERY_STATE_{delivery.state.name}"),
        attempt_count=delivery.attempt_count,
        attempt_time=optional_time_to_proto(delivery.attempt_time),
        next_attempt_time=optional_time_to_proto(delivery.next_attempt_time),
        error=delivery.error,
    )


def _state_from_text(text: str, choices: tuple[str, ...]) -> AlertState | None:
    if not text:
        return None
    if text not in choices:
        raise InvalidRequestError("state", f"must be one of {', '.join(choices)}, got '{text[:64]}'")
    return _STATES[text]


def _metric_to_proto(metric: AlertMetric) -> "wire.AlertMetric.ValueType":
    return wire.AlertMetric.Value(f"ALERT_METRIC_{metric.name}")


def _comparison_to_proto(comparison: AlertComparison) -> "wire.AlertComparison.ValueType":
    return wire.AlertComparison.Value(f"ALERT_COMPARISON_{comparison.name}")


def _state_to_proto(state: AlertState) -> "wire.AlertState.ValueType":
    return wire.AlertState.Value(f"ALERT_STATE_{state.name}")
