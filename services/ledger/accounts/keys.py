"""API keys and own provider keys: what they are and what makes them valid. A value that exists is valid."""

import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from services.common.authentication import Scope
from services.common.errors import ForbiddenError, InvalidRequestError
from services.ledger.accounts.accounts import DISPLAY_NAME_MAX, nothing_named, require_name, require_text
from services.ledger.accounts.audit import Settings, in_words
from services.ledger.accounts.call_settings import NO_RATE_LIMIT, RateLimit
from services.ledger.accounts.spending_limits import SpendingLimit, limit_settings, require_one_limit

PROVIDER_SECRET_MAX = 4_096
KEY_PREFIX = "tg_"
KEY_RANDOM_BYTES = 32

# What fits into a header, so what a client can send.
_SENDABLE = re.compile(r"[!-~]{1,512}", re.ASCII)


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
    # None means that it may spend all its organization has.
    spending_limit: SpendingLimit | None = None
    rate_limit: RateLimit = NO_RATE_LIMIT

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
        _require_spender(self.scope, self.spending_limit)
        _require_caller(self.scope, self.rate_limit)


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
    spending_limit: SpendingLimit | None
    rate_limit: RateLimit = NO_RATE_LIMIT

    def in_force(self, now: datetime) -> bool:
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)

    @property
    def settings(self) -> Settings:
        return {
            "scope": self.scope.name,
            "project_id": self.project_id,
            "display_name": self.display_name,
            "read_only": self.read_only,
            "expire_time": in_words(self.expire_time),
            "revoke_time": in_words(self.revoke_time),
            **limit_settings(self.spending_limit),
            **self.rate_limit.by_name(),
        }

    def require_may_create(self, new: NewApiKey) -> None:
        """Raises ForbiddenError for a key that could do more than this one. Its scope is looked at elsewhere."""
        if self.expire_time is not None and (new.expire_time is None or new.expire_time > self.expire_time):
            end = in_words(self.expire_time) or ""
            raise ForbiddenError(
                f"This key ends at {end}, and what it creates may not end later; set expire_time.", expire_time=end
            )
        # However low its limit, a second key would have it once more.
        if self._limit and not new.read_only:
            raise ForbiddenError(f"This key has a {self._limit} limit and may create read-only keys only.")

    def require_may_limit(self) -> None:
        """Raises ForbiddenError for a key that could lift its own limit."""
        if self._limit:
            raise ForbiddenError(f"This key has a {self._limit} limit and may not change limits.")

    @property
    def _limit(self) -> str:
        """Which limit it has; empty for none."""
        if self.spending_limit is not None:
            return "spending"
        return "rate" if self.rate_limit != NO_RATE_LIMIT else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyChange:
    """What to change of a key. None leaves it as it is."""

    display_name: str | None
    expire_time: datetime | None
    spending_limit: SpendingLimit | None
    clear_spending_limit: bool
    # In place of all of an earlier one.
    rate_limit: RateLimit | None = None

    def __post_init__(self) -> None:
        if self.display_name is None and self.expire_time is None and not self.changes_limit:
            raise nothing_named("display_name, expire_time, spending_limit, clear_spending_limit or rate_limit")
        if self.display_name is not None:
            require_text("display_name", self.display_name, least=0, most=DISPLAY_NAME_MAX)
        require_one_limit(self.spending_limit, clear=self.clear_spending_limit)

    @property
    def changes_limit(self) -> bool:
        return self.spending_limit is not None or self.clear_spending_limit or self.rate_limit is not None

    def applied_to(self, key: ApiKey, now: datetime) -> ApiKey:
        """The key as changed. Raises InvalidRequestError for an end that is past or later than before."""
        _require_spender(key.scope, self.spending_limit)
        _require_caller(key.scope, self.rate_limit or NO_RATE_LIMIT)
        if self.expire_time is not None:
            # The clock of the machine that made the key may have been ahead of this one's.
            if self.expire_time <= max(now, key.create_time):
                raise InvalidRequestError("expire_time", "must be in the future; to end the key now, revoke it")
            if key.expire_time is not None and self.expire_time > key.expire_time:
                raise InvalidRequestError("expire_time", "may only move closer; create another key instead")
        limit = key.spending_limit if self.spending_limit is None else self.spending_limit
        return replace(
            key,
            display_name=key.display_name if self.display_name is None else self.display_name,
            expire_time=key.expire_time if self.expire_time is None else self.expire_time,
            spending_limit=None if self.clear_spending_limit else limit,
            rate_limit=key.rate_limit if self.rate_limit is None else self.rate_limit,
        )


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
    """That an organization has a key of its own for a provider."""

    organization_id: UUID
    provider: str
    update_time: datetime

    @property
    def settings(self) -> Settings:
        return {"update_time": in_words(self.update_time)}


def new_api_key_secret() -> str:
    """A key nobody has: `tg_` and 43 characters that stand for 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_RANDOM_BYTES)


def is_sendable(secret: str) -> bool:
    """Whether a client can send this as a key."""
    return _SENDABLE.fullmatch(secret) is not None


def _require_spender(scope: Scope, limit: SpendingLimit | None) -> None:
    if scope is Scope.OPERATOR and limit is not None:
        raise InvalidRequestError("spending_limit", "is not for operator keys, which spend nothing")


def _require_caller(scope: Scope, limit: RateLimit) -> None:
    limit.require_valid("rate_limit")
    if scope is Scope.OPERATOR and limit != NO_RATE_LIMIT:
        raise InvalidRequestError("rate_limit", "is not for operator keys, which call no models")
