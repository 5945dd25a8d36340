"""Which tables there are, and of which kind. A new table is listed here, and the schema lint holds it to its kind."""

from enum import Enum


class Kind(Enum):
    """Where the rows of a table live, on one machine or many."""

    TENANT = "split by organization, whose id is in every key"
    SHARED = "small, rarely written, on every node"
    SERVICE = "on one node, never part of recording usage"


TABLES = {
    # accounts
    "organization": Kind.TENANT,
    "project": Kind.TENANT,
    "provider_key": Kind.TENANT,
    "audit_log": Kind.TENANT,
    "api_key": Kind.SHARED,
    "operator_audit_log": Kind.SERVICE,
    "schema_version": Kind.SERVICE,
}
