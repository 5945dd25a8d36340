"""Records without a price can be found: they are few, among all that there are.

The index holds nothing but them, so recording priced calls pays nothing for it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A request id begins with its time, so this is the order in which they came.
    op.execute("CREATE INDEX usage_record_unpriced ON ledger.usage_record (request_id) WHERE unpriced")


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
