"""Organizations and projects: what they are and what makes them valid. A value that exists is valid."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from services.common.errors import InvalidRequestError
from services.ledger.accounts.audit import Settings, in_words
from services.ledger.accounts.call_settings import AS_CONFIGURED, ProjectSettings
from services.ledger.accounts.spending_limits import SpendingLimit, limit_settings, require_one_limit

RETENTION_DAYS_MAX = 365
DISPLAY_NAME_MAX = 128

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# PostgreSQL stores no NUL, and nothing shown to people or sent in a header holds the others.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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
    # None means that its keys may spend all it has.
    spending_limit: SpendingLimit | None = None

    def __post_init__(self) -> None:
        require_text("display_name", self.display_name, least=1, most=DISPLAY_NAME_MAX)
        retention_days_of(self.plan, self.retention_days_agreed)

    @property
    def retention_days(self) -> int:
        return retention_days_of(self.plan, self.retention_days_agreed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A customer."""

    organization_id: UUID
    display_name: str
    plan: Plan
    retention_days: int
    payload_retained: bool
    create_time: datetime
    spending_limit: SpendingLimit | None

    @property
    def settings(self) -> Settings:
        return {
            "display_name": self.display_name,
            "plan": self.plan.name,
            "retention_days": self.retention_days,
            "payload_retained": self.payload_retained,
            **limit_settings(self.spending_limit),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationChange:
    """What to change of an organization. None leaves it as it is."""

    display_name: str | None
    plan: Plan | None
    # Agreed with an Enterprise customer.
    retention_days_agreed: int | None
    payload_retained: bool | None
    spending_limit: SpendingLimit | None = None
    clear_spending_limit: bool = False

    def __post_init__(self) -> None:
        if (
            self.display_name is None
            and self.payload_retained is None
            and not (self.changes_plan or self.changes_limit)
        ):
            raise nothing_named(
                "display_name, plan, retention_days, payload_retained, spending_limit or clear_spending_limit"
            )
        require_one_limit(self.spending_limit, clear=self.clear_spending_limit)
        if self.display_name is not None:
            require_text("display_name", self.display_name, least=1, most=DISPLAY_NAME_MAX)

    @property
    def changes_plan(self) -> bool:
        """Whether it says what the organization books, which is for operators to say."""
        return self.plan is not None or self.retention_days_agreed is not None

    @property
    def changes_limit(self) -> bool:
        return self.spending_limit is not None or self.clear_spending_limit

    def applied_to(self, organization: Organization) -> Organization:
        """The organization as changed. Raises InvalidRequestError for a retention that does not go with its plan."""
        plan = organization.plan if self.plan is None else self.plan
        agreed = self.retention_days_agreed
        if agreed is None and plan is Plan.ENTERPRISE and organization.plan is Plan.ENTERPRISE:
            agreed = organization.retention_days
        limit = organization.spending_limit if self.spending_limit is None else self.spending_limit
        return replace(
            organization,
            display_name=organization.display_name if self.display_name is None else self.display_name,
            plan=plan,
            retention_days=retention_days_of(plan, agreed),
            payload_retained=(
                organization.payload_retained if self.payload_retained is None else self.payload_retained
            ),
            spending_limit=None if self.clear_spending_limit else limit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """A project to be."""

    # As the caller named it; empty for their own.
    organization_id: str
    project_id: str
    mode: ProjectMode
    call_settings: ProjectSettings = AS_CONFIGURED

    def __post_init__(self) -> None:
        require_name("project_id", self.project_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A part of an organization that calls models and is billed apart."""

    organization_id: UUID
    project_id: str
    mode: ProjectMode
    create_time: datetime
    # None unless it is archived.
    archive_time: datetime | None
    call_settings: ProjectSettings = AS_CONFIGURED

    @property
    def settings(self) -> Settings:
        return {
            "mode": self.mode.name,
            "archive_time": in_words(self.archive_time),
            **self.call_settings.in_words,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChange:
    """What to change of a project. None leaves it as it is."""

    mode: ProjectMode | None
    archived: bool | None
    # In place of all that were set before.
    call_settings: ProjectSettings | None = None

    def __post_init__(self) -> None:
        if self.mode is None and self.archived is None and self.call_settings is None:
            raise nothing_named("mode, archived or settings")

    def applied_to(self, project: Project, now: datetime) -> Project:
        """The project as changed. One that is archived again stays so since the first time."""
        archive_time = project.archive_time
        if self.archived is not None and self.archived != (archive_time is not None):
            # The clock of the machine that made the project may have been ahead of this one's.
            archive_time = max(now, project.create_time) if self.archived else None
        return replace(
            project,
            mode=project.mode if self.mode is None else self.mode,
            archive_time=archive_time,
            call_settings=project.call_settings if self.call_settings is None else self.call_settings,
        )


def retention_days_of(plan: Plan, agreed: int | None) -> int:
    """How long a plan keeps records. Raises InvalidRequestError for an agreement that does not go with it."""
    if plan is not Plan.ENTERPRISE:
        if agreed is not None:
            raise InvalidRequestError("retention_days", "is only for the Enterprise plan; leave it out")
        return RETENTION_DAYS[plan]
    if agreed is None or not 1 <= agreed <= RETENTION_DAYS_MAX:
        raise InvalidRequestError(
            "retention_days", f"must be from 1 to {RETENTION_DAYS_MAX} with the Enterprise plan, got {agreed or 0}"
        )
    return agreed


def is_name(text: str) -> bool:
    """Whether the text may name a project or provider."""
    return _NAME.fullmatch(text) is not None


def require_name(field: str, text: str) -> None:
    """Raises unless the text may name a project or provider."""
    if not is_name(text):
        raise InvalidRequestError(field, "must be 1 to 64 letters, digits or ._:-")


def require_text(field: str, text: str, *, least: int, most: int) -> None:
    """Raises unless the text has a length in the range and no control characters."""
    if not least <= len(text) <= most:
        raise InvalidRequestError(field, f"must have {least} to {most} characters, got {len(text)}")
    if _CONTROL.search(text):
        raise InvalidRequestError(field, "must not hold control characters")


def nothing_named(settings: str) -> InvalidRequestError:
    """A misspelt member of a JSON body is ignored, so a change of nothing is more likely a slip than meant."""
    return InvalidRequestError("the request", f"names nothing to change; set {settings}")


def organization_uuid(text: str) -> UUID:
    """Raises unless the text is a UUID as we print them."""
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text:
        raise InvalidRequestError("organization_id", "must be a UUID in lower case")
    return parsed
