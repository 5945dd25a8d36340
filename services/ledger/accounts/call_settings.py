"""How model calls are treated: rate limits, and what projects set. A value that exists is valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from services.common.errors import InvalidRequestError
from services.ledger.accounts.audit import Settings
from services.ledger.wire_values import require_name

RATE_MAX = 1_000_000_000
CACHE_SECONDS_MAX = 30 * 24 * 3600
PREFERRED_PROVIDERS_MAX = 32


class ProviderOrder(IntEnum):
    """Which provider comes first. The numbers are those of `tollgate.ledger.v1.ProviderOrder`."""

    CONFIGURED = 1
    PRICE = 2
    LATENCY = 3


class AnswerFormat(IntEnum):
    """What an answer says of itself. The numbers are those of `tollgate.ledger.v1.AnswerFormat`."""

    RAW = 1
    META = 2
    ENVELOPE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How much may be asked for. None is as the router is configured; zero lets nothing through."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None

    def require_valid(self, field: str) -> None:
        """Raises InvalidRequestError, naming the number, which is in `field`."""
        for name, number in self.by_name().items():
            _require_range(f"{field}.{name}", number, RATE_MAX)

    def by_name(self, prefix: str = "") -> dict[str, int | None]:
        """Its numbers, as columns and the audit log name them."""
        return {
            f"{prefix}requests_per_minute": self.requests_per_minute,
            f"{prefix}tokens_per_minute": self.tokens_per_minute,
            f"{prefix}concurrent_calls": self.concurrent_calls,
        }


NO_RATE_LIMIT = RateLimit()
# Before the names of an end user's numbers.
END_USER = "end_user_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """How a project's calls are routed, limited, cached and answered. None is as the router is configured."""

    provider_order: ProviderOrder | None = None
    # The most preferred first.
    preferred_providers: Sequence[str] = ()
    # Zero turns the response cache off.
    cache_seconds: int | None = None
    answer_format: AnswerFormat | None = None
    # Of all calls together.
    rate_limit: RateLimit = NO_RATE_LIMIT
    # Of each end user.
    end_user_rate_limit: RateLimit = NO_RATE_LIMIT

    def __post_init__(self) -> None:
        field = "settings.preferred_providers"
        if len(self.preferred_providers) > PREFERRED_PROVIDERS_MAX:
            raise InvalidRequestError(field, f"must be at most {PREFERRED_PROVIDERS_MAX}")
        if len(set(self.preferred_providers)) < len(self.preferred_providers):
            raise InvalidRequestError(field, "must name each provider once")
        for at, provider in enumerate(self.preferred_providers):
            require_name(f"{field}[{at}]", provider)
        _require_range("settings.cache_seconds", self.cache_seconds, CACHE_SECONDS_MAX)
        self.rate_limit.require_valid("settings.rate_limit")
        self.end_user_rate_limit.require_valid("settings.end_user_rate_limit")

    @property
    def in_words(self) -> Settings:
        return {
            "provider_order": None if self.provider_order is None else self.provider_order.name,
            "preferred_providers": ", ".join(self.preferred_providers) or None,
            "cache_seconds": self.cache_seconds,
            "answer_format": None if self.answer_format is None else self.answer_format.name,
            **self.rate_limit.by_name(),
            **self.end_user_rate_limit.by_name(END_USER),
        }


def _require_range(field: str, number: int | None, most: int) -> None:
    if number is not None and not 0 <= number <= most:
        raise InvalidRequestError(field, f"must be from 0 to {most}, got {number}")


AS_CONFIGURED = ProjectSettings()
