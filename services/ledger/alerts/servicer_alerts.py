"""Speaks the wire for alerts."""

from typing import Any

from services.common.grpc_calls import current_caller
from services.ledger.alerts.alert_keeping import AlertKeeper
from services.ledger.alerts.alert_reading import AlertReader
from services.ledger.alerts.convert_alerts import (
    alert_filter_from_proto,
    alert_rule_change_from_proto,
    alert_rule_filter_from_proto,
    alert_rule_to_proto,
    alert_to_proto,
    new_alert_rule_from_proto,
)
from tollgate.ledger.v1 import alert_service_pb2 as wire
from tollgate.ledger.v1.alert_service_pb2_grpc import AlertServiceServicer


class AlertServicer(AlertServiceServicer):
    """`AlertService`."""

    def __init__(self, keeper: AlertKeeper, reader: AlertReader) -> None:
        self._keeper = keeper
        self._reader = reader

    async def CreateAlertRule(self, request: wire.CreateAlertRuleRequest, context: Any) -> wire.CreateAlertRuleResponse:
        rule, secret = await self._keeper.create(current_caller(), new_alert_rule_from_proto(request))
        return wire.CreateAlertRuleResponse(alert_rule=alert_rule_to_proto(rule), webhook_secret=secret)

    async def GetAlertRule(self, request: wire.GetAlertRuleRequest, context: Any) -> wire.GetAlertRuleResponse:
        rule = await self._reader.rule(current_caller(), request.organization_id, request.alert_rule_id)
        return wire.GetAlertRuleResponse(alert_rule=alert_rule_to_proto(rule))

    async def ListAlertRules(self, request: wire.ListAlertRulesRequest, context: Any) -> wire.ListAlertRulesResponse:
        page = await self._reader.list_rules(
            current_caller(),
            request.organization_id,
            request.project_id,
            alert_rule_filter_from_proto(request),
            limit=request.limit,
            page_token=request.page_token,
        )
        return wire.ListAlertRulesResponse(
            alert_rules=map(alert_rule_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def UpdateAlertRule(self, request: wire.UpdateAlertRuleRequest, context: Any) -> wire.UpdateAlertRuleResponse:
        change = alert_rule_change_from_proto(request)
        rule, secret = await self._keeper.update(
            current_caller(), request.organization_id, request.alert_rule_id, change
        )
        return wire.UpdateAlertRuleResponse(alert_rule=alert_rule_to_proto(rule), webhook_secret=secret)

    async def DeleteAlertRule(self, request: wire.DeleteAlertRuleRequest, context: Any) -> wire.DeleteAlertRuleResponse:
        await self._keeper.delete(current_caller(), request.organization_id, request.alert_rule_id)
        return wire.DeleteAlertRuleResponse()

    async def ListAlerts(self, request: wire.ListAlertsRequest, context: Any) -> wire.ListAlertsResponse:
        page = await self._reader.list_alerts(
            current_caller(),
            request.organization_id,
            request.project_id,
            alert_filter_from_proto(request),
            limit=request.limit,
            page_token=request.page_token,
        )
        return wire.ListAlertsResponse(alerts=map(alert_to_proto, page.items), next_page_token=page.next_page_token)
