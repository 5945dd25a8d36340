"""Projects say how their calls are routed, limited, cached and answered, and keys how much they may ask for.

NULL, everywhere, is as the router is configured. Beside what they belong to, because all of it is asked before a call.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_RATES = ("requests_per_minute", "tokens_per_minute", "concurrent_calls")
_OF_END_USERS = tuple(f"end_user_{name}" for name in _RATES)


def upgrade() -> None:
    _let_projects_set()
    _let_keys_be_limited()


def _let_projects_set() -> None:
    # tollgate.ledger.v1.ProviderOrder
    _add("project", "provider_order SMALLINT")
    _add("project", "preferred_providers TEXT[] NOT NULL DEFAULT '{}'")
    _add("project", "cache_seconds INTEGER")
    # tollgate.ledger.v1.AnswerFormat
    _add("project", "answer_format SMALLINT")
    for name in (*_RATES, *_OF_END_USERS):
        _add("project", f"{name} INTEGER")
    op.execute(f"""
        ALTER TABLE ledger.project
          ADD CONSTRAINT project_call_settings_in_range CHECK (
              provider_order BETWEEN 1 AND 3 AND cardinality(preferred_providers) <= 32
              AND cache_seconds BETWEEN 0 AND 2592000 AND answer_format BETWEEN 1 AND 3
              AND {_in_range(_RATES)} AND {_in_range(_OF_END_USERS)}
          )
    """)


def _let_keys_be_limited() -> None:
    for name in _RATES:
        _add("api_key", f"{name} INTEGER")
    op.execute(f"ALTER TABLE ledger.api_key ADD CONSTRAINT api_key_rate_limit_in_range CHECK ({_in_range(_RATES)})")
    op.execute(f"""
        ALTER TABLE ledger.api_key
          ADD CONSTRAINT api_key_of_operator_calls_no_models
              CHECK (scope <> 2 OR num_nonnulls({", ".join(_RATES)}) = 0)
    """)
    op.execute(f"GRANT UPDATE ({', '.join(_RATES)}) ON ledger.api_key TO tollgate_ledger")


def _add(table: str, column: str) -> None:
    op.execute(f"ALTER TABLE ledger.{table} ADD COLUMN {column}")


def _in_range(names: tuple[str, ...]) -> str:
    return " AND ".join(f"{name} BETWEEN 0 AND 1000000000" for name in names)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
