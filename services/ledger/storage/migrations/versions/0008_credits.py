"""Credit that ends and comes back, and a journal that says when and how much there was after each entry.

What remains of a grant changes; what was granted does not. Times of entries never go back, whichever ledger books them,
so that a period of the journal is a range of sequences.
"""

from alembic import op

from services.ledger.storage.migrations.access import protect_tenant_table

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _give_the_journal_time_and_balance()
    _let_credit_end()
    _create_credit_refund()


def _give_the_journal_time_and_balance() -> None:
    op.execute("ALTER TABLE ledger.journal_entry ADD COLUMN balance_pico NUMERIC(38,0)")
    # PREPAID, PROMOTIONAL, RECEIVABLE and HELD are the organization's own.
    op.execute("""
        UPDATE ledger.journal_entry
           SET balance_pico = total.balance_pico
          FROM (
               SELECT organization_id, sequence,
                      sum((SELECT COALESCE(sum(amount), 0) FROM unnest(accounts, amounts) AS posting (account, amount)
                            WHERE account BETWEEN 1 AND 4))
                      OVER (PARTITION BY organization_id ORDER BY sequence) AS balance_pico
                 FROM ledger.journal_entry
               ) AS total
         WHERE journal_entry.organization_id = total.organization_id AND journal_entry.sequence = total.sequence
    """)
    op.execute("ALTER TABLE ledger.journal_entry ALTER COLUMN balance_pico SET NOT NULL")
    op.execute("""
        COMMENT ON COLUMN ledger.journal_entry.balance_pico IS
            'What the organization has after it, less what it owes'
    """)
    # What statements list one by one is rare among what calls cost.
    op.execute("""
        CREATE INDEX journal_entry_not_usage ON ledger.journal_entry (organization_id, sequence)
         WHERE kind NOT IN (1, 6)
    """)
    op.execute("ALTER TABLE ledger.book ADD COLUMN post_time TIMESTAMPTZ")
    op.execute("""
        UPDATE ledger.book
           SET post_time = (SELECT max(create_time) FROM ledger.journal_entry
                             WHERE journal_entry.organization_id = book.organization_id)
    """)
    op.execute("ALTER TABLE ledger.book ALTER COLUMN post_time SET NOT NULL")
    op.execute(
        "COMMENT ON COLUMN ledger.book.post_time IS 'The time of the last journal entry; none is booked before it'"
    )


def _let_credit_end() -> None:
    # tollgate.ledger.v1.CreditSource
    op.execute("ALTER TABLE ledger.credit_grant ADD COLUMN source SMALLINT NOT NULL DEFAULT 1 CHECK (source IN (1, 2))")
    op.execute("ALTER TABLE ledger.credit_grant ALTER COLUMN source DROP DEFAULT")
    op.execute("ALTER TABLE ledger.credit_grant ADD COLUMN expire_time TIMESTAMPTZ CHECK (expire_time > create_time)")
    op.execute("ALTER TABLE ledger.credit_grant ADD COLUMN remaining_pico NUMERIC(38,0)")
    # Nothing has ended yet, so what was granted last is what remains.
    op.execute("""
        UPDATE ledger.credit_grant
           SET remaining_pico = LEAST(rest.amount_pico, GREATEST(0, rest.balance_pico))
          FROM (
               SELECT grants.organization_id, grants.grant_id, grants.amount_pico,
                      COALESCE(balance.amount_pico, 0) - sum(grants.amount_pico) OVER (
                          PARTITION BY grants.organization_id, grants.kind ORDER BY grants.sequence DESC
                      ) + grants.amount_pico AS balance_pico
                 FROM ledger.credit_grant AS grants
                 LEFT JOIN ledger.balance AS balance
                   ON balance.organization_id = grants.organization_id AND balance.account = grants.kind
               ) AS rest
         WHERE credit_grant.organization_id = rest.organization_id AND credit_grant.grant_id = rest.grant_id
    """)
    op.execute("ALTER TABLE ledger.credit_grant ALTER COLUMN remaining_pico SET NOT NULL")
    op.execute("""
        ALTER TABLE ledger.credit_grant
          ADD CONSTRAINT credit_grant_remaining_is_of_it CHECK (remaining_pico BETWEEN 0 AND amount_pico)
    """)
    op.execute("""
        COMMENT ON COLUMN ledger.credit_grant.remaining_pico IS
            'What remained when credits were last settled; what was charged since is only in the balance'
    """)
    op.execute("GRANT UPDATE (remaining_pico) ON ledger.credit_grant TO tollgate_ledger")
    op.execute("""
        CREATE INDEX credit_grant_open ON ledger.credit_grant (organization_id, sequence) WHERE remaining_pico > 0
    """)
    op.execute("CREATE UNIQUE INDEX credit_grant_newest ON ledger.credit_grant (organization_id, sequence)")
    op.execute("ALTER TABLE ledger.book ADD COLUMN next_expire_time TIMESTAMPTZ")
    op.execute("""
        COMMENT ON COLUMN ledger.book.next_expire_time IS
            'When the next credit ends: whoever books anything from then on books its end first'
    """)
    op.execute("CREATE INDEX book_next_expiry ON ledger.book (next_expire_time) WHERE next_expire_time IS NOT NULL")


def _create_credit_refund() -> None:
    op.execute("""
        -- What was given back, by the id its giver chose. A correction is a credit_grant too.
        CREATE TABLE ledger.credit_refund (
            organization_id UUID NOT NULL REFERENCES ledger.organization,
            refund_id       TEXT NOT NULL,
            -- tollgate.ledger.v1.RefundKind
            kind            SMALLINT NOT NULL CHECK (kind IN (1, 2)),
            amount_pico     NUMERIC(38,0) NOT NULL CHECK (amount_pico > 0),
            -- The grant whose unspent part went back; NULL for a correction.
            grant_id        TEXT,
            -- tollgate.ledger.v1.CreditKind of a correction; NULL otherwise.
            credit_kind     SMALLINT CHECK (credit_kind IN (1, 2)),
            reason          TEXT NOT NULL CHECK (char_length(reason) <= 256),
            -- The journal entry that booked it.
            sequence        BIGINT NOT NULL,
            -- What could be spent after it.
            balance_pico    NUMERIC(38,0) NOT NULL,
            create_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, refund_id),
            CONSTRAINT credit_refund_is_of_its_kind CHECK (
                (kind = 1) = (grant_id IS NOT NULL) AND (kind = 2) = (credit_kind IS NOT NULL)
            )
        )
    """)
    protect_tenant_table(op, "credit_refund", append_only=True, reported=False)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
