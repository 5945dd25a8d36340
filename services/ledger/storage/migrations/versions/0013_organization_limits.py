"""Organizations may limit what all their keys together spend, as a key can be limited."""

from alembic import op

from services.ledger.storage.migrations.access import protect_tenant_table

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both NULL for an organization whose keys may spend all it has.
    op.execute("ALTER TABLE ledger.organization ADD COLUMN spending_limit_pico NUMERIC(38,0)")
    # tollgate.ledger.v1.SpendingPeriod
    op.execute("ALTER TABLE ledger.organization ADD COLUMN spending_period SMALLINT")
    op.execute("""
        ALTER TABLE ledger.organization
          ADD CONSTRAINT organization_spending_limit_is_whole CHECK (
              num_nulls(spending_limit_pico, spending_period) IN (0, 2)
              AND spending_limit_pico >= 0 AND spending_period BETWEEN 1 AND 3
          )
    """)
    op.execute("""
        -- The sums of ledger.key_spending over all keys: what every lease of a limited organization asks for.
        CREATE TABLE ledger.organization_spending (
            organization_id UUID NOT NULL,
            day             DATE NOT NULL,
            charged_pico    NUMERIC(38,0) NOT NULL,
            PRIMARY KEY (organization_id, day)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "organization_spending", reported=False)
    op.execute("""
        INSERT INTO ledger.organization_spending (organization_id, day, charged_pico)
        SELECT organization_id, day, sum(charged_pico) FROM ledger.key_spending GROUP BY 1, 2
    """)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
