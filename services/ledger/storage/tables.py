"""Which tables there are, and of which kind. A new table is listed here, and the schema lint holds it to its kind."""

from enum import Enum


class Kind(Enum):
    """Where the rows of a table live, on one machine or many."""

    TENANT = "split by organization, whose id is in every key"
    SHARED = "small, rarely written, on every node"
    SERVICE = "on one node, never part of recording usage"
    LANE = "on every node apart, each with what was delivered there"


TABLES = {
    # accounts
    "organization": Kind.TENANT,
    "organization_plan": Kind.TENANT,
    "project": Kind.TENANT,
    "provider_key": Kind.TENANT,
    "audit_log": Kind.TENANT,
    "api_key": Kind.SHARED,
    "operator_audit_log": Kind.SERVICE,
    "schema_version": Kind.SERVICE,
    # prices
    "price_book": Kind.SHARED,
    "price_version": Kind.SHARED,
    "price_condition": Kind.SHARED,
    "price": Kind.SHARED,
    "discount": Kind.SHARED,
    "catalogue_load": Kind.SHARED,
    # usage
    "record_key": Kind.TENANT,
    "usage_record": Kind.TENANT,
    "usage_hour": Kind.TENANT,
    "usage_day": Kind.TENANT,
    "latency_day": Kind.TENANT,
    "failure_day": Kind.TENANT,
    "money_day": Kind.TENANT,
    "record_day": Kind.TENANT,
    "payload": Kind.TENANT,
    "producer_cursor": Kind.LANE,
    "rejected_record": Kind.LANE,
    # retention
    "plan_settlement": Kind.TENANT,
    "expiry": Kind.TENANT,
    "retention_problem": Kind.TENANT,
    "leader": Kind.SERVICE,
    # books
    "book": Kind.TENANT,
    "journal_entry": Kind.TENANT,
    "balance": Kind.TENANT,
    "credit_grant": Kind.TENANT,
    # credit that is leased
    "lease": Kind.TENANT,
    "key_spending": Kind.TENANT,
    "organization_spending": Kind.TENANT,
    "producer_release": Kind.LANE,
    "credit_refund": Kind.TENANT,
    # alerts
    "alert_rule": Kind.TENANT,
    "alert": Kind.TENANT,
    "alert_delivery": Kind.TENANT,
}
