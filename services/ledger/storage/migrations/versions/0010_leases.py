"""Credit that is leased to routers, and what each key has spent: calls that run at the same time cannot overspend.

What a lease holds is no posting: it is set aside within the balance, and only a call's charge moves money.
"""

from alembic import op

from services.ledger.storage.migrations.access import open_table, protect_tenant_table

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_lease()
    _create_producer_release()
    _create_key_spending()


def _create_lease() -> None:
    op.execute("""
        -- Slices of credit that routers spend from. What one holds goes down as calls are recorded, as the router gives
        -- back, or when no record that names it can come any more; never by time alone.
        CREATE TABLE ledger.lease (
            organization_id UUID NOT NULL,
            -- Chosen by the router.
            lease_id        UUID NOT NULL,
            -- The key whose spending limit holds for all its calls; NULL for keys without one.
            api_key_id      UUID,
            -- The life of a log that its records come from.
            producer_id     UUID NOT NULL,
            epoch           BIGINT NOT NULL CHECK (epoch >= 1),
            granted_pico    NUMERIC(38,0) NOT NULL CHECK (granted_pico > 0),
            -- Totals since it was granted: given back, taken over by records, freed because none can come.
            returned_pico   NUMERIC(38,0) NOT NULL DEFAULT 0 CHECK (returned_pico >= 0),
            settled_pico    NUMERIC(38,0) NOT NULL DEFAULT 0 CHECK (settled_pico >= 0),
            lapsed_pico     NUMERIC(38,0) NOT NULL DEFAULT 0 CHECK (lapsed_pico >= 0),
            held_pico       NUMERIC(38,0) NOT NULL
                            GENERATED ALWAYS AS (granted_pico - returned_pico - settled_pico - lapsed_pico) STORED
                            CHECK (held_pico >= 0),
            create_time     TIMESTAMPTZ NOT NULL,
            -- Until when the router need not say that it still uses it.
            expire_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, lease_id)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "lease", reported=False)
    op.execute("CREATE INDEX lease_holding ON ledger.lease (organization_id) WHERE held_pico > 0")
    op.execute("CREATE INDEX lease_of_producer ON ledger.lease (producer_id, epoch) WHERE held_pico > 0")
    op.execute("CREATE INDEX lease_end ON ledger.lease (expire_time)")


def _create_producer_release() -> None:
    op.execute("""
        -- Lives of logs that are over: everything they wrote is recorded, and they get no lease any more.
        CREATE TABLE ledger.producer_release (
            producer_id  UUID PRIMARY KEY,
            -- Every life before this one is over.
            before_epoch BIGINT NOT NULL CHECK (before_epoch >= 1)
        )
    """)
    open_table(op, "producer_release")


def _create_key_spending() -> None:
    op.execute("""
        -- What calls of a key cost the organization's credit, by the day in UTC on which they started. Calls that an
        -- own provider key pays for do not count. Kept for ever: a limit may be for the whole life of a key.
        CREATE TABLE ledger.key_spending (
            organization_id UUID NOT NULL,
            api_key_id      UUID NOT NULL,
            day             DATE NOT NULL,
            charged_pico    NUMERIC(38,0) NOT NULL,
            PRIMARY KEY (organization_id, api_key_id, day)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "key_spending", reported=False)
    # What hourly figures still say; what has expired of them belongs to days that no limit by day or month asks for.
    op.execute("""
        INSERT INTO ledger.key_spending (organization_id, api_key_id, day, charged_pico)
        SELECT organization_id, api_key_id, (hour AT TIME ZONE 'UTC')::date, sum(charged_pico)
          FROM ledger.usage_hour
         WHERE funding = 1 AND charged_pico > 0
         GROUP BY 1, 2, 3
    """)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
