"""How calls are treated: as the router is configured, and as a project and a key want it otherwise."""

from dataclasses import dataclass, field

from services.router.calls.answers import AnswerFormat
from services.router.limits.limits import Limit
from services.router.routing.ordering import Order, Preference
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings, ResolveKeyResponse

CACHE_SECONDS_MAX = 30 * 24 * 3600
NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for one call."""

    preference: Preference = field(default_factory=Preference)
    # For how long an answer may be given again. 0 turns the response cache off.
    cache_seconds: int = 0
    answer_format: AnswerFormat = AnswerFormat.RAW
    key_limit: Limit = NO_LIMIT
    project_limit: Limit = NO_LIMIT
    end_user_limit: Limit = NO_LIMIT
    address_limit: Limit = NO_LIMIT


def policy_for(grant: ResolveKeyResponse, defaults: Policy) -> Policy:
    """The defaults, but for what the project and the key say."""
    if not grant.HasField("project_settings") and not grant.HasField("rate_limit"):
        return defaults
    project = grant.project_settings
    cache_seconds = project.cache_seconds if project.HasField("cache_seconds") else defaults.cache_seconds
    return Policy(
        preference=_preference(project, defaults.preference),
        cache_seconds=min(max(cache_seconds, 0), CACHE_SECONDS_MAX),
        answer_format=AnswerFormat(int(project.answer_format)) if project.answer_format else defaults.answer_format,
        key_limit=_limit(grant.rate_limit, defaults.key_limit),
        project_limit=_limit(project.rate_limit, defaults.project_limit),
        end_user_limit=_limit(project.end_user_rate_limit, defaults.end_user_limit),
        address_limit=defaults.address_limit,
    )


def _preference(project: ProjectSettings, default: Preference) -> Preference:
    return Preference(
        order=Order(int(project.provider_order)) if project.provider_order else default.order,
        providers=tuple(project.preferred_providers) or default.providers,
    )


def _limit(said: directory_service_pb2.RateLimit, default: Limit) -> Limit:
    """Each number that was not said is the default's."""
    if not said.ListFields():
        return default
    return Limit(
        requests_per_minute=said.requests_per_minute
        if said.HasField("requests_per_minute")
        else default.requests_per_minute,
        tokens_per_minute=said.tokens_per_minute if said.HasField("tokens_per_minute") else default.tokens_per_minute,
        concurrent_calls=said.concurrent_calls if said.HasField("concurrent_calls") else default.concurrent_calls,
    )
