"""The audit log, wire ↔ domain."""

import re

from google.protobuf.struct_pb2 import Struct

from services.common.errors import InvalidRequestError
from services.common.parameters import optional_time, optional_uuid
from services.ledger.accounts.accounts import require_text
from services.ledger.accounts.audit import AuditEntry, Settings
from services.ledger.convert_values import scope_to_proto, time_to_proto
from services.ledger.storage.accounts.audit import AuditFilter
from tollgate.ledger.v1 import account_service_pb2

SUBJECT_MAX = 128
_ACTION = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}", re.ASCII)


def audit_filter_from_proto(request: account_service_pb2.ListAuditEntriesRequest) -> AuditFilter:
    """Of all organizations: which of them the caller may see is for others to say."""
    if request.action and not _ACTION.fullmatch(request.action):
        raise InvalidRequestError("action", "must be a kind of thing and a verb, such as api_key.revoke")
    require_text("subject", request.subject, least=0, most=SUBJECT_MAX)
    from_time, to_time = optional_time("from", request.from_time), optional_time("to", request.to_time)
    if from_time is not None and to_time is not None and to_time < from_time:
        raise InvalidRequestError("to", f"must not be before from ({request.from_time}), got '{request.to_time}'")
    return AuditFilter(
        organization_id=None,
        api_key_id=optional_uuid("api_key_id", request.api_key_id),
        action=request.action or None,
        subject=request.subject or None,
        from_time=from_time,
        to_time=to_time,
    )


def audit_entry_to_proto(entry: AuditEntry) -> account_service_pb2.AuditEntry:
    return account_service_pb2.AuditEntry(
        audit_id=str(entry.audit_id),
        create_time=time_to_proto(entry.create_time),
        organization_id="" if entry.organization_id is None else str(entry.organization_id),
        actor_scope=scope_to_proto(entry.actor_scope),
        actor_api_key_id="" if entry.actor_api_key_id is None else str(entry.actor_api_key_id),
        action=entry.action,
        subject=entry.subject,
        before=_struct(entry.before),
        after=_struct(entry.after),
    )


def _struct(settings: Settings) -> Struct:
    struct = Struct()
    struct.update(dict(settings))
    return struct
