"""Settings of projects, row ↔ domain: columns of `ledger.project`."""

from sqlalchemy import RowMapping

from services.ledger.accounts.call_settings import END_USER, AnswerFormat, ProjectSettings, ProviderOrder, RateLimit
from services.ledger.storage.accounts.account_tables import project

RATE_LIMIT_NAMES = tuple(RateLimit().by_name())
SETTINGS_NAMES = (
    *("provider_order", "preferred_providers", "cache_seconds", "answer_format"),
    *RATE_LIMIT_NAMES,
    *RateLimit().by_name(END_USER),
)
SETTINGS_COLUMNS = [project.c[name] for name in SETTINGS_NAMES]


def project_settings_to_row(settings: ProjectSettings) -> dict[str, object]:
    return {
        "provider_order": settings.provider_order,
        "preferred_providers": list(settings.preferred_providers),
        "cache_seconds": settings.cache_seconds,
        "answer_format": settings.answer_format,
        **settings.rate_limit.by_name(),
        **settings.end_user_rate_limit.by_name(END_USER),
    }


def project_settings_from_row(row: RowMapping) -> ProjectSettings:
    order, answers = row["provider_order"], row["answer_format"]
    return ProjectSettings(
        provider_order=None if order is None else ProviderOrder(order),
        preferred_providers=tuple(row["preferred_providers"]),
        cache_seconds=row["cache_seconds"],
        answer_format=None if answers is None else AnswerFormat(answers),
        rate_limit=_rate_limit(row),
        end_user_rate_limit=_rate_limit(row, END_USER),
    )


def _rate_limit(row: RowMapping, prefix: str = "") -> RateLimit:
    return RateLimit(**{name: row[f"{prefix}{name}"] for name in RATE_LIMIT_NAMES})
