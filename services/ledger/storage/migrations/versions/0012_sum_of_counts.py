"""Counts of durations are added up in the database: what a question needs of them is a few arrays, not every count."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE AGGREGATE ledger.sum_of_counts(INTEGER[]) (
            SFUNC = ledger.add_counts, STYPE = INTEGER[], INITCOND = '{}', COMBINEFUNC = ledger.add_counts,
            PARALLEL = SAFE
        )
    """)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
