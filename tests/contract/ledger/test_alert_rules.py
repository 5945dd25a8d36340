"""Alert rules over a real channel: created, read, listed, changed, deleted, and nobody else's business."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import psycopg
import pytest

from services.ledger.alerts.alert_rules import RULES_MAX
from tests.conftest import Database
from tests.contract.ledger.accounts_server import (
    OPERATOR,
    WEBHOOK_KEY,
    Ledger,
    Metadata,
    Refusal,
    bearer,
    refusal_of,
    running_ledger,
)
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import alert_service_pb2 as wire
from tollgate.ledger.v1.account_service_pb2 import ListAuditEntriesRequest

DENIED, MISSING, INVALID = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
)
UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
URL = "https://example.com/alerts?token=very-private"
METHODS = wire.DESCRIPTOR.services_by_name["AlertService"].methods


def a_rule(**fields: Any) -> wire.CreateAlertRuleRequest:
    values: dict[str, Any] = {"metric": wire.ALERT_METRIC_ERROR_RATE, "threshold": "5", "window_minutes": 15}
    return wire.CreateAlertRuleRequest(**values | fields)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def make(ledger: Ledger, key: Metadata, **fields: Any) -> wire.CreateAlertRuleResponse:
    made: wire.CreateAlertRuleResponse = await ledger.alerts.CreateAlertRule(a_rule(**fields), metadata=key)
    return made


async def change(ledger: Ledger, key: Metadata, alert_rule_id: str, **fields: Any) -> wire.UpdateAlertRuleResponse:
    request = wire.UpdateAlertRuleRequest(alert_rule_id=alert_rule_id, **fields)
    changed: wire.UpdateAlertRuleResponse = await ledger.alerts.UpdateAlertRule(request, metadata=key)
    return changed


async def rules(ledger: Ledger, key: Metadata, **filters: str) -> list[str]:
    listed = await ledger.alerts.ListAlertRules(wire.ListAlertRulesRequest(**filters), metadata=key)
    return [rule.display_name for rule in listed.alert_rules]


async def a_key(ledger: Ledger, organization_id: str, **fields: Any) -> Metadata:
    return bearer((await ledger.key(organization_id, **fields)).secret)


async def test_a_rule_is_shown_as_it_was_created(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await a_key(ledger, acme)
    await ledger.project(acme, "web")

    made = await make(
        ledger,
        key,
        project_id="web",
        display_name="Slow",
        metric=wire.ALERT_METRIC_LATENCY,
        percentile=95,
        threshold="1500.50",
        window_minutes=60,
        request_count_min=20,
        comparison=wire.ALERT_COMPARISON_BELOW,
    )
    rule = made.alert_rule
    shown = await ledger.alerts.GetAlertRule(wire.GetAlertRuleRequest(alert_rule_id=rule.alert_rule_id), metadata=key)

    assert shown.alert_rule == rule
    assert (rule.organization_id, rule.project_id, rule.display_name) == (acme, "web", "Slow")
    assert (rule.metric, rule.percentile, rule.threshold) == (wire.ALERT_METRIC_LATENCY, 95, "1500.5")
    assert (rule.window_minutes, rule.request_count_min) == (60, 20)
    assert rule.comparison == wire.ALERT_COMPARISON_BELOW
    assert rule.state == wire.ALERT_STATE_OK
    assert not rule.HasField("evaluate_time")
    assert (rule.value, rule.webhook_url, made.webhook_secret) == ("", "", "")


async def test_what_is_left_out_of_a_rule_is_the_whole_organization_and_above_the_threshold(ledger: Ledger) -> None:
    acme = await ledger.organization()

    rule = (await make(ledger, OPERATOR, organization_id=acme)).alert_rule

    assert (rule.organization_id, rule.project_id) == (acme, "")
    assert rule.comparison == wire.ALERT_COMPARISON_ABOVE
    assert (rule.paused, rule.request_count_min) == (False, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"metric": 0}, "metric"),
        ({"metric": 99}, "metric"),
        ({"comparison": 99}, "comparison"),
        ({"threshold": ""}, "threshold"),
        ({"threshold": "-1"}, "threshold"),
        ({"threshold": "1e3"}, "threshold"),
        ({"threshold": "٣"}, "threshold"),
        ({"threshold": "0.0000000000001"}, "threshold"),
        ({"threshold": "1" * 16}, "threshold"),
        ({"threshold": "100.1"}, "threshold"),
        ({"window_minutes": 4}, "window_minutes"),
        ({"window_minutes": 43_201}, "window_minutes"),
        ({"metric": wire.ALERT_METRIC_LATENCY, "percentile": 50, "window_minutes": 1_441}, "window_minutes"),
        ({"metric": wire.ALERT_METRIC_LATENCY}, "percentile"),
        ({"metric": wire.ALERT_METRIC_LATENCY, "percentile": 100}, "percentile"),
        ({"metric": wire.ALERT_METRIC_LATENCY, "percentile": -1}, "percentile"),
        ({"percentile": 95}, "percentile"),
        ({"request_count_min": -1}, "request_count_min"),
        ({"request_count_min": 1_000_000_001}, "request_count_min"),
        ({"display_name": "x" * 129}, "display_name"),
        ({"display_name": "\0"}, "display_name"),
        ({"project_id": "a b"}, "project_id"),
        ({"webhook_url": "example.com"}, "webhook_url"),
        ({"webhook_url": "http://example.com/"}, "webhook_url"),
        ({"webhook_url": "https://localhost/"}, "webhook_url"),
        ({"webhook_url": "https://[::1]/"}, "webhook_url"),
        ({"organization_id": "acme"}, "organization_id"),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    ledger: Ledger, fields: dict[str, Any], field: str
) -> None:
    key = await a_key(ledger, await ledger.organization())

    refusal = await refusal_of(ledger.alerts.CreateAlertRule(a_rule(**fields), metadata=key))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)
    assert refusal.message.startswith(field)
    assert await rules(ledger, key) == []


async def test_an_operator_says_whose_a_rule_is(ledger: Ledger) -> None:
    refusal = await refusal_of(ledger.alerts.CreateAlertRule(a_rule(), metadata=OPERATOR))
    unknown = await refusal_of(ledger.alerts.CreateAlertRule(a_rule(organization_id=UNKNOWN), metadata=OPERATOR))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, "organization_id")
    assert unknown.code == MISSING


async def test_a_rule_is_for_a_project_that_is_there(ledger: Ledger) -> None:
    acme = await ledger.organization()

    refusal = await refusal_of(
        ledger.alerts.CreateAlertRule(a_rule(organization_id=acme, project_id="nowhere"), metadata=OPERATOR)
    )

    assert (refusal.code, refusal.message) == (MISSING, "There is no project nowhere.")


async def test_an_organization_has_a_hundred_rules_at_most(ledger: Ledger) -> None:
    acme = await ledger.organization()
    first = (await make(ledger, OPERATOR, organization_id=acme)).alert_rule
    for _ in range(RULES_MAX - 1):
        await make(ledger, OPERATOR, organization_id=acme)

    refusal = await refusal_of(ledger.alerts.CreateAlertRule(a_rule(organization_id=acme), metadata=OPERATOR))
    request = wire.DeleteAlertRuleRequest(alert_rule_id=first.alert_rule_id, organization_id=acme)
    await ledger.alerts.DeleteAlertRule(request, metadata=OPERATOR)

    assert (refusal.code, refusal.reason, refusal.metadata["maximum"]) == (INVALID, "TOO_LARGE", "100")
    assert (await make(ledger, OPERATOR, organization_id=acme)).alert_rule.alert_rule_id


async def test_a_change_leaves_what_it_does_not_name(ledger: Ledger) -> None:
    key = await a_key(ledger, await ledger.organization())
    before = (await make(ledger, key, display_name="Errors", request_count_min=7)).alert_rule

    after = (await change(ledger, key, before.alert_rule_id, threshold="2.5", request_count_min=0)).alert_rule

    assert (after.threshold, after.request_count_min) == ("2.5", 0)
    assert (after.display_name, after.window_minutes, after.metric) == ("Errors", 15, before.metric)
    assert after.update_time.ToDatetime() >= before.update_time.ToDatetime()


async def test_a_rule_is_paused_and_goes_on(ledger: Ledger) -> None:
    key = await a_key(ledger, await ledger.organization())
    rule_id = (await make(ledger, key)).alert_rule.alert_rule_id

    assert (await change(ledger, key, rule_id, paused=True)).alert_rule.paused
    assert not (await change(ledger, key, rule_id, paused=False)).alert_rule.paused


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "the request"),
        ({"threshold": ""}, "threshold"),
        ({"threshold": "101"}, "threshold"),
        ({"window_minutes": 0}, "window_minutes"),
        ({"request_count_min": -1}, "request_count_min"),
        ({"display_name": "\n"}, "display_name"),
        ({"webhook_url": "https://10.0.0.1/"}, "webhook_url"),
        ({"rotate_webhook_secret": True}, "rotate_webhook_secret"),
        ({"rotate_webhook_secret": True, "webhook_url": ""}, "rotate_webhook_secret"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    ledger: Ledger, fields: dict[str, Any], field: str
) -> None:
    key = await a_key(ledger, await ledger.organization())
    before = (await make(ledger, key)).alert_rule

    request = wire.UpdateAlertRuleRequest(alert_rule_id=before.alert_rule_id, **fields)
    refusal = await refusal_of(ledger.alerts.UpdateAlertRule(request, metadata=key))
    shown = await ledger.alerts.GetAlertRule(wire.GetAlertRuleRequest(alert_rule_id=before.alert_rule_id), metadata=key)

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)
    assert shown.alert_rule == before


async def test_rules_are_listed_from_the_newest_page_by_page_and_filtered(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await a_key(ledger, acme, read_only=True)
    await ledger.project(acme, "web")
    for name, project_id in (("first", ""), ("second", "web"), ("third", "web")):
        await make(ledger, OPERATOR, organization_id=acme, display_name=name, project_id=project_id)

    page = await ledger.alerts.ListAlertRules(wire.ListAlertRulesRequest(limit="2"), metadata=key)

    assert [rule.display_name for rule in page.alert_rules] == ["third", "second"]
    assert await rules(ledger, key, limit="2", page_token=page.next_page_token) == ["first"]
    assert await rules(ledger, key, project_id="web") == ["third", "second"]
    assert await rules(ledger, key, state="ok") == ["third", "second", "first"]
    assert await rules(ledger, key, state="firing") == []
    assert await rules(ledger, OPERATOR, organization_id=acme, project_id="nowhere") == []


@pytest.mark.parametrize("method", ["ListAlertRules", "ListAlerts"])
@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"page_token": "?"}, "page_token"),
        ({"project_id": "a b"}, "project_id"),
        ({"state": "angry"}, "state"),
    ],
)
async def test_a_list_that_cannot_be_is_refused_by_the_name_of_its_parameter(
    ledger: Ledger, method: str, filters: dict[str, str], field: str
) -> None:
    key = await a_key(ledger, await ledger.organization())
    request = getattr(wire, f"{method}Request")(**filters)

    refusal = await refusal_of(getattr(ledger.alerts, method)(request, metadata=key))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"alert_rule_id": "x"}, "alert_rule_id"),
        ({"from_time": "yesterday"}, "from"),
        ({"to_time": "2026-13-01T00:00:00Z"}, "to"),
        ({"from_time": "2026-03-02T00:00:00Z", "to_time": "2026-03-01T00:00:00Z"}, "to"),
        ({"state": "ok"}, "state"),
    ],
)
async def test_a_list_of_alerts_that_cannot_be_is_refused(ledger: Ledger, filters: dict[str, str], field: str) -> None:
    key = await a_key(ledger, await ledger.organization())

    refusal = await refusal_of(ledger.alerts.ListAlerts(wire.ListAlertsRequest(**filters), metadata=key))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)


# Webhooks


async def test_a_webhook_has_a_secret_that_is_shown_once_and_stored_sealed(ledger: Ledger, database: Database) -> None:
    acme = await ledger.organization()
    key = await a_key(ledger, acme)

    made = await make(ledger, key, webhook_url=URL)
    rule_id = made.alert_rule.alert_rule_id
    shown = await ledger.alerts.GetAlertRule(wire.GetAlertRuleRequest(alert_rule_id=rule_id), metadata=key)
    changed = await change(ledger, key, rule_id, webhook_url="https://example.com/elsewhere")
    with psycopg.connect(database.admin_url) as connection:
        stored = connection.execute(
            "SELECT sealed_webhook_secret FROM ledger.alert_rule WHERE alert_rule_id = %s", (rule_id,)
        ).fetchone()

    assert made.webhook_secret.startswith("whsec_")
    assert made.webhook_secret not in str(shown)
    assert changed.webhook_secret == ""
    assert stored is not None
    assert made.webhook_secret.encode() not in stored[0]
    assert WEBHOOK_KEY not in stored[0]


async def test_a_secret_is_rotated_and_a_first_webhook_gets_one(ledger: Ledger) -> None:
    key = await a_key(ledger, await ledger.organization())
    rule_id = (await make(ledger, key)).alert_rule.alert_rule_id

    first = await change(ledger, key, rule_id, webhook_url=URL)
    second = await change(ledger, key, rule_id, rotate_webhook_secret=True)
    gone = await change(ledger, key, rule_id, webhook_url="")

    assert first.webhook_secret.startswith("whsec_")
    assert second.webhook_secret.startswith("whsec_")
    assert first.webhook_secret != second.webhook_secret
    assert (gone.alert_rule.webhook_url, gone.webhook_secret) == ("", "")


# The audit log


async def test_the_audit_log_tells_what_was_done_to_rules_and_no_secret(ledger: Ledger) -> None:
    acme = await ledger.organization()
    key = await a_key(ledger, acme)
    made = await make(ledger, key, webhook_url=URL)
    rule_id = made.alert_rule.alert_rule_id
    await change(ledger, key, rule_id, threshold="9")
    rotated = await change(ledger, key, rule_id, rotate_webhook_secret=True)
    await change(ledger, key, rule_id, webhook_url=URL + "-too")
    await change(ledger, key, rule_id, threshold="9")
    await ledger.alerts.DeleteAlertRule(wire.DeleteAlertRuleRequest(alert_rule_id=rule_id), metadata=key)

    log = await ledger.accounts.ListAuditEntries(ListAuditEntriesRequest(subject=rule_id), metadata=key)
    deleted, moved, rotation, updated, created = log.audit_entries

    assert [entry.action.removeprefix("alert_rule.") for entry in log.audit_entries] == [
        "delete",
        "update",
        "update",
        "update",
        "create",
    ]
    assert created.after["webhook_host"] == "example.com"
    assert (dict(updated.before), dict(updated.after)) == ({"threshold": "5"}, {"threshold": "9"})
    assert dict(rotation.after) == {"webhook_secret": "changed"}
    assert dict(moved.after) == {"webhook_url": "changed"}
    assert deleted.before["threshold"] == "9"
    for private in (made.webhook_secret, rotated.webhook_secret, "very-private"):
        assert private not in str(log)


# Who may

Aim = Callable[[str, str], Any]
# By the rule they name, and by the organization they name.
AIMS: dict[str, Aim] = {
    "CreateAlertRule": lambda organization_id, _: a_rule(organization_id=organization_id),
    "GetAlertRule": lambda organization_id, rule_id: wire.GetAlertRuleRequest(
        alert_rule_id=rule_id, organization_id=organization_id
    ),
    "ListAlertRules": lambda organization_id, _: wire.ListAlertRulesRequest(organization_id=organization_id),
    "UpdateAlertRule": lambda organization_id, rule_id: wire.UpdateAlertRuleRequest(
        alert_rule_id=rule_id, organization_id=organization_id, paused=True
    ),
    "DeleteAlertRule": lambda organization_id, rule_id: wire.DeleteAlertRuleRequest(
        alert_rule_id=rule_id, organization_id=organization_id
    ),
    "ListAlerts": lambda organization_id, _: wire.ListAlertsRequest(organization_id=organization_id),
}
IN_PATH = ["GetAlertRule", "UpdateAlertRule", "DeleteAlertRule"]
WRITING = [method.name for method in METHODS if method.GetOptions().Extensions[access_pb2.access].writes]


def without_names(refusal: Refusal, *names: str) -> tuple[Any, ...]:
    message = refusal.message
    for name in names:
        message = message.replace(name, "…")
    return refusal.code, refusal.reason, message, sorted(refusal.metadata)


async def state_of(ledger: Ledger, organization_id: str) -> str:
    listed = await ledger.alerts.ListAlertRules(
        wire.ListAlertRulesRequest(organization_id=organization_id), metadata=OPERATOR
    )
    return str(listed)


def test_every_method_is_aimed_at_something() -> None:
    assert {method.name for method in METHODS} == set(AIMS)


@pytest.mark.parametrize("method", AIMS)
async def test_a_foreign_organization_is_refused_whether_it_exists_or_not(ledger: Ledger, method: str) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    theirs = (await make(ledger, OPERATOR, organization_id=globex)).alert_rule.alert_rule_id
    key, before = await a_key(ledger, acme), await state_of(ledger, globex)

    foreign = await refusal_of(getattr(ledger.alerts, method)(AIMS[method](globex, theirs), metadata=key))
    absent = await refusal_of(getattr(ledger.alerts, method)(AIMS[method](UNKNOWN, UNKNOWN), metadata=key))

    assert foreign.code == DENIED
    assert without_names(foreign, globex, theirs) == without_names(absent, UNKNOWN)
    assert await state_of(ledger, globex) == before


@pytest.mark.parametrize("method", IN_PATH)
async def test_a_foreign_rule_is_as_absent_as_one_that_does_not_exist(ledger: Ledger, method: str) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    theirs = (await make(ledger, OPERATOR, organization_id=globex)).alert_rule.alert_rule_id
    key, before = await a_key(ledger, acme), await state_of(ledger, globex)

    foreign = await refusal_of(getattr(ledger.alerts, method)(AIMS[method]("", theirs), metadata=key))
    absent = await refusal_of(getattr(ledger.alerts, method)(AIMS[method]("", UNKNOWN), metadata=key))
    no_id = await refusal_of(getattr(ledger.alerts, method)(AIMS[method]("", "x"), metadata=key))

    assert foreign.code == no_id.code == MISSING
    assert without_names(foreign, theirs) == without_names(absent, UNKNOWN)
    assert await state_of(ledger, globex) == before


@pytest.mark.parametrize("method", WRITING)
async def test_a_read_only_key_changes_nothing_even_of_its_own(ledger: Ledger, method: str) -> None:
    acme = await ledger.organization()
    mine = (await make(ledger, OPERATOR, organization_id=acme)).alert_rule.alert_rule_id
    key, before = await a_key(ledger, acme, read_only=True), await state_of(ledger, acme)

    refusal = await refusal_of(getattr(ledger.alerts, method)(AIMS[method](acme, mine), metadata=key))

    assert (refusal.code, refusal.reason) == (DENIED, "READ_ONLY_KEY")
    assert await state_of(ledger, acme) == before


@pytest.mark.parametrize("method", AIMS)
async def test_a_stranger_is_turned_away_before_anything_is_looked_at(ledger: Ledger, method: str) -> None:
    for metadata in ((), bearer("tg_unknown")):
        refusal = await refusal_of(getattr(ledger.alerts, method)(AIMS[method]("x", "x"), metadata=metadata))

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_a_project_key_keeps_the_rules_of_its_project_and_sees_no_others(ledger: Ledger) -> None:
    acme = await ledger.organization()
    for project_id in ("web", "lab"):
        await ledger.project(acme, project_id)
    key = await a_key(ledger, acme, project_id="web")
    wide = (await make(ledger, OPERATOR, organization_id=acme, display_name="wide")).alert_rule.alert_rule_id
    await make(ledger, OPERATOR, organization_id=acme, display_name="lab", project_id="lab")

    own = (await make(ledger, key, display_name="own")).alert_rule
    await change(ledger, key, own.alert_rule_id, threshold="7")

    assert own.project_id == "web"
    assert await rules(ledger, key) == ["own"]
    for method in IN_PATH:
        refusal = await refusal_of(getattr(ledger.alerts, method)(AIMS[method]("", wide), metadata=key))
        assert (refusal.code, refusal.reason) == (MISSING, "NOT_FOUND")
    for call in (
        ledger.alerts.CreateAlertRule(a_rule(project_id="lab"), metadata=key),
        ledger.alerts.ListAlertRules(wire.ListAlertRulesRequest(project_id="lab"), metadata=key),
        ledger.alerts.ListAlerts(wire.ListAlertsRequest(project_id="lab"), metadata=key),
    ):
        assert (await refusal_of(call)).code == DENIED


@pytest.mark.parametrize("method", ["ListAlertRules", "ListAlerts"])
async def test_a_foreign_project_in_a_filter_is_refused_whether_it_exists_or_not(ledger: Ledger, method: str) -> None:
    acme, globex = await ledger.organization(), await ledger.organization()
    await ledger.project(globex, "theirs")
    key = await a_key(ledger, acme)

    for project_id in ("theirs", "nowhere"):
        request = getattr(wire, f"{method}Request")(project_id=project_id)
        refusal = await refusal_of(getattr(ledger.alerts, method)(request, metadata=key))
        assert refusal.code == DENIED
