"""The audit log's lines: who changed what, when, and what became different."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.common.authentication import Caller, Scope

# As people read them: names of choices, times as RFC 3339, amounts as decimal strings. Never a secret.
Settings = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change."""

    audit_id: UUID
    create_time: datetime
    # None for what belongs to no organization.
    organization_id: UUID | None
    actor_scope: Scope
    # None for our services.
    actor_api_key_id: UUID | None
    # "project.create"
    action: str
    # The id of what it was done to.
    subject: str
    # The settings that changed, as they were. Empty for something new.
    before: Settings = field(default_factory=dict)
    # The same settings as they are since.
    after: Settings = field(default_factory=dict)


def audit_entry(
    caller: Caller,
    action: str,
    subject: str,
    *,
    audit_id: UUID,
    create_time: datetime,
    organization_id: UUID | None,
    before: Settings | None = None,
    after: Settings | None = None,
) -> AuditEntry:
    """What the caller did, with only those settings that it made different; of something new, those that are set."""
    earlier, later = before or {}, after or {}
    names = [name for name in {**earlier, **later} if earlier.get(name) != later.get(name)]
    return AuditEntry(
        audit_id=audit_id,
        create_time=create_time,
        organization_id=organization_id,
        actor_scope=caller.scope,
        actor_api_key_id=None if caller.api_key_id is None else UUID(caller.api_key_id),
        action=action,
        subject=subject,
        before={name: earlier[name] for name in names if name in earlier},
        after={name: later[name] for name in names if name in later},
    )


def in_words(time: datetime | None) -> str | None:
    """A moment as a setting."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")
