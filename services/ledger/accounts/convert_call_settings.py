"""Settings of projects and rate limits, wire ↔ domain."""

from enum import IntEnum

from services.ledger.accounts.call_settings import (
    AS_CONFIGURED,
    NO_RATE_LIMIT,
    AnswerFormat,
    ProjectSettings,
    ProviderOrder,
    RateLimit,
)
from services.ledger.convert_values import named_choice
from tollgate.ledger.v1 import directory_service_pb2 as wire


def project_settings_from_proto(said: wire.ProjectSettings) -> ProjectSettings:
    order, answers = said.provider_order, said.answer_format
    return ProjectSettings(
        provider_order=named_choice("settings.provider_order", ProviderOrder, order) if order else None,
        preferred_providers=tuple(said.preferred_providers),
        cache_seconds=said.cache_seconds if said.HasField("cache_seconds") else None,
        answer_format=named_choice("settings.answer_format", AnswerFormat, answers) if answers else None,
        rate_limit=rate_limit_from_proto(said.rate_limit),
        end_user_rate_limit=rate_limit_from_proto(said.end_user_rate_limit),
    )


def project_settings_to_proto(settings: ProjectSettings) -> wire.ProjectSettings | None:
    """None where nothing is set."""
    if settings == AS_CONFIGURED:
        return None
    order, answers = settings.provider_order, settings.answer_format
    return wire.ProjectSettings(
        provider_order=wire.ProviderOrder.Value(f"PROVIDER_ORDER_{_name(order)}"),
        preferred_providers=settings.preferred_providers,
        cache_seconds=settings.cache_seconds,
        answer_format=wire.AnswerFormat.Value(f"ANSWER_FORMAT_{_name(answers)}"),
        rate_limit=rate_limit_to_proto(settings.rate_limit),
        end_user_rate_limit=rate_limit_to_proto(settings.end_user_rate_limit),
    )


def rate_limit_from_proto(said: wire.RateLimit) -> RateLimit:
    return RateLimit(**{field.name: number for field, number in said.ListFields()})


def rate_limit_to_proto(limit: RateLimit) -> wire.RateLimit | None:
    """None where nothing is set."""
    return None if limit == NO_RATE_LIMIT else wire.RateLimit(**limit.by_name())


def _name(choice: IntEnum | None) -> str:
    return "UNSPECIFIED" if choice is None else choice.name
