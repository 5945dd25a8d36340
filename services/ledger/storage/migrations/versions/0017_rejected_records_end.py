"""Records that were set aside are deleted in time: what they say of somebody's calls must not stay for ever."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT DELETE ON ledger.rejected_record TO tollgate_ledger")
    op.execute("CREATE INDEX rejected_record_oldest ON ledger.rejected_record (receipt_time)")


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
