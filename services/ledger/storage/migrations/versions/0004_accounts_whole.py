"""Accounts that can be changed: archived projects, spending limits, what a change replaced, and which plan held when.

How long records are kept goes by the plan, so whoever drops them has to know when it changed.
"""

from alembic import op

from services.ledger.storage.migrations.access import protect_tenant_table

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_organization_plan()
    _let_projects_be_archived()
    _limit_keys()
    _log_what_was_before()


def _create_organization_plan() -> None:
    op.execute("""
        -- Which plan an organization has had from when on. Only ever added to; the newest row is what
        -- ledger.organization says.
        CREATE TABLE ledger.organization_plan (
            organization_id UUID NOT NULL REFERENCES ledger.organization,
            valid_from      TIMESTAMPTZ NOT NULL,
            -- tollgate.ledger.v1.Plan
            plan            SMALLINT NOT NULL CHECK (plan BETWEEN 1 AND 3),
            retention_days  INTEGER NOT NULL CHECK (retention_days BETWEEN 1 AND 365),
            PRIMARY KEY (organization_id, valid_from)
        )
    """)
    protect_tenant_table(op, "organization_plan", append_only=True, reported=False)
    # Until now a plan could not change.
    op.execute("""
        INSERT INTO ledger.organization_plan (organization_id, valid_from, plan, retention_days)
        SELECT organization_id, create_time, plan, retention_days FROM ledger.organization
    """)


def _let_projects_be_archived() -> None:
    op.execute("ALTER TABLE ledger.project ADD COLUMN archive_time TIMESTAMPTZ")
    op.execute("""
        ALTER TABLE ledger.project
          ADD CONSTRAINT project_archived_after_creation CHECK (archive_time >= create_time)
    """)


def _limit_keys() -> None:
    # Exact, as all money is. Both NULL for a key that may spend all its organization has.
    op.execute("ALTER TABLE ledger.api_key ADD COLUMN spending_limit_pico NUMERIC(38,0)")
    # tollgate.ledger.v1.SpendingPeriod
    op.execute("ALTER TABLE ledger.api_key ADD COLUMN spending_period SMALLINT")
    op.execute("""
        ALTER TABLE ledger.api_key
          ADD CONSTRAINT api_key_spending_limit_is_whole CHECK (
              num_nulls(spending_limit_pico, spending_period) IN (0, 2)
              AND spending_limit_pico >= 0 AND spending_period BETWEEN 1 AND 3
          )
    """)
    op.execute("""
        ALTER TABLE ledger.api_key
          ADD CONSTRAINT api_key_of_operator_spends_nothing CHECK (scope <> 2 OR spending_limit_pico IS NULL)
    """)
    # How far a key reaches stays settled when it is made.
    op.execute("""
        GRANT UPDATE (display_name, expire_time, spending_limit_pico, spending_period)
           ON ledger.api_key TO tollgate_ledger
    """)
    # Lists are newest first, and ids carry their time; nothing reads keys by create_time.
    op.execute("CREATE INDEX api_key_newest ON ledger.api_key (organization_id, api_key_id)")
    op.execute("DROP INDEX ledger.api_key_by_organization")


def _log_what_was_before() -> None:
    # `details` holds the settings as they are since; NULL here is for something new.
    op.execute("ALTER TABLE ledger.audit_log ADD COLUMN before JSONB")
    op.execute("ALTER TABLE ledger.operator_audit_log ADD COLUMN before JSONB")
    # For operators who look at all organizations at once.
    op.execute("CREATE INDEX audit_log_newest ON ledger.audit_log (audit_id)")


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
