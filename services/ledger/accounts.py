"""Organizations, projects and keys: what they are and what makes them valid. A value that exists is valid."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError

RETENTION_DAYS_MAX = 365
DISPLAY_NAME_MAX = 128
PROVIDER_SECRET_MAX = 4_096
KEY_PREFIX = "tg_"
KEY_RANDOM_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# PostgreSQL stores no NUL, and nothing shown to people or sent in a header holds the others.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What fits into a header, so what a client can send.
_SENDABLE = re.compile(r"[!-~]{1,512}", re.ASCII)


class Plan(IntEnum):
    """What an organization has booked. The numbers are those of `tollgate.ledger.v1.Plan`."""

    FREE = 1
    PRO = 2
    ENTERPRISE = 3


class ProjectMode(IntEnum):
    """How a project pays. The numbers are those of `tollgate.ledger.v1.ProjectMode`."""

    CREDITS = 1
    OWN_KEYS = 2
    HYBRID = 3


RETENTION_DAYS = {Plan.FREE: 3, Plan.PRO: 90}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrganization:
    """An organization to be."""

    display_name: str
    plan: Plan
    # Agreed with an Enterprise customer. None when nothing was said, as it must be with the other plans.
    retention_days_agreed: int | None
    payload_retained: bool

    def __post_init__(self) -> None:
        require_text("display_name", self.display_name, least=1, most=DISPLAY_NAME_MAX)
        agreed = self.retention_days_agreed
        if self.plan is not Plan.ENTERPRISE and agreed is not None:
            raise InvalidRequestError("retention_days", "is only for the Enterprise plan; leave it out")
        if self.plan is Plan.ENTERPRISE and (agreed is None or not 1 <= agreed <= RETENTION_DAYS_MAX):
            raise InvalidRequestError(
                "retention_days", f"must be from 1 to {RETENTION_DAYS_MAX} with the Enterprise plan, got {agreed or 0}"
            )

    @property
    def retention_days(self) -> int:
        return self.retention_days_agreed or RETENTION_DAYS[self.plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A customer."""

    organization_id: UUID
    display_name: str
    plan: Plan
    retention_days: int
    payload_retained: bool
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """A project to be."""

    # As the caller named it; empty for their own.
    organization_id: str
    project_id: str
    mode: ProjectMode

    def __post_init__(self) -> None:
        require_name("project_id", self.project_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A part of an organization that calls models and is billed apart."""

    organization_id: UUID
    project_id: str
    mode: ProjectMode
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key to be."""

    scope: Scope
    # As the caller named it; empty for their own, and for operator keys.
    organization_id: str
    # None unless the scope is PROJECT.
    project_id: str | None
    display_name: str
    read_only: bool
    # None means that it does not end by itself.
    expire_time: datetime | None

    def __post_init__(self) -> None:
        require_text("display_name", self.display_name, least=0, most=DISPLAY_NAME_MAX)
        if self.scope is Scope.SERVICE:
            raise InvalidRequestError("scope", "must be operator, organization or project: services have no keys")
        if self.scope is Scope.OPERATOR and self.organization_id:
            raise InvalidRequestError("organization_id", "is not for operator keys, which reach every organization")
        if self.scope is Scope.PROJECT and self.project_id is None:
            raise InvalidRequestError("project_id", "is needed for a key of scope project")
        if self.scope is not Scope.PROJECT and self.project_id is not None:
            raise InvalidRequestError("project_id", "is only for keys of scope project")
        if self.project_id is not None:
            require_name("project_id", self.project_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key. Never the key itself."""

    api_key_id: UUID
    scope: Scope
    # None for operator keys.
    organization_id: UUID | None
    # None unless the scope is PROJECT.
    project_id: str | None
    display_name: str
    read_only: bool
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None

    def in_force(self, now: datetime) -> bool:
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProviderKey:
    """An organization's own key for a provider, still legible. Lives until it is sealed."""

    # As the caller named it; empty for their own.
    organization_id: str
    provider: str
    secret: str

    def __post_init__(self) -> None:
        require_name("provider", self.provider)
        require_text("secret", self.secret, least=1, most=PROVIDER_SECRET_MAX)

    def __repr__(self) -> str:
        return f"NewProviderKey(provider={self.provider!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """The same, sealed."""

    organization_id: UUID
    provider: str
    sealed_secret: bytes
    update_time: datetime


def new_api_key_secret() -> str:
    """A key nobody has: `tg_` and 43 characters that stand for 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_RANDOM_BYTES)


def is_sendable(secret: str) -> bool:
    """Whether a client can send this as a key."""
    return _SENDABLE.fullmatch(secret) is not None


def require_name(field: str, text: str) -> None:
    """Raises unless the text may name a project or provider."""
    if _NAME.fullmatch(text) is None:
        raise InvalidRequestError(field, "must be 1 to 64 letters, digits or ._:-")


def require_text(field: str, text: str, *, least: int, most: int) -> None:
    """Raises unless the text has a length in the range and no control characters."""
    if not least <= len(text) <= most:
        raise InvalidRequestError(field, f"must have {least} to {most} characters, got {len(text)}")
    if _CONTROL.search(text):
        raise InvalidRequestError(field, "must not hold control characters")


def organization_uuid(text: str) -> UUID:
    """Raises unless the text is a UUID as we print them."""
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text:
        raise InvalidRequestError("organization_id", "must be a UUID in lower case")
    return parsed
