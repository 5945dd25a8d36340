"""What an organization's calls of a day cost, by price version, and how many there were: kept for ever.

Detail and hourly figures expire by plan. Money owed does not, so statements are made of these; and what is about to be
dropped is held against them first.
"""

from alembic import op

from services.ledger.storage.migrations.access import protect_tenant_table

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        -- What cost lines of a day add up to. Written with the records, never deleted.
        CREATE TABLE ledger.money_day (
            organization_id  UUID NOT NULL,
            -- The day in UTC of the records' start_time.
            day              DATE NOT NULL,
            provider         TEXT NOT NULL,
            model            TEXT NOT NULL,
            -- tollgate.ledger.v1.Funding
            funding          SMALLINT NOT NULL,
            -- services.ledger.pricing.Line
            line             SMALLINT NOT NULL,
            -- Whether credits paid.
            charged          BOOLEAN NOT NULL,
            -- 0 for lines that have no price from the price book: DATA_STORAGE.
            price_version_id BIGINT NOT NULL,
            discount         NUMERIC NOT NULL CHECK (discount BETWEEN 0 AND 1),
            -- A record may have several lines of one kind.
            line_count       BIGINT NOT NULL,
            quantity         NUMERIC(38,0) NOT NULL,
            -- Before the discount, and after it.
            list_cost_pico   NUMERIC(38,0) NOT NULL,
            cost_pico        NUMERIC(38,0) NOT NULL,
            PRIMARY KEY (organization_id, day, provider, model, funding, line, charged, price_version_id, discount)
        ) WITH (fillfactor = 70)
    """)
    protect_tenant_table(op, "money_day", reported=False)
    op.execute("""
        -- How many records an organization has of a day, and what they add up to. Written with them, never deleted:
        -- what is there of detail, and what has expired of it, are this together.
        CREATE TABLE ledger.record_day (
            organization_id UUID NOT NULL,
            -- The day in UTC of the records' start_time.
            day             DATE NOT NULL,
            record_count    BIGINT NOT NULL,
            unpriced_count  BIGINT NOT NULL,
            cost_pico       NUMERIC(38,0) NOT NULL,
            saved_pico      NUMERIC(38,0) NOT NULL,
            charged_pico    NUMERIC(38,0) NOT NULL,
            -- Retention asks for a day of all organizations, statements for money_day.
            PRIMARY KEY (day, organization_id)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "record_day", reported=False)
    _fill_from_detail()


def _fill_from_detail() -> None:
    # Nothing has expired yet, so detail still says it all.
    op.execute("""
        INSERT INTO ledger.money_day
        SELECT organization_id, (start_time AT TIME ZONE 'UTC')::date, provider, model, funding,
               each_line.line, each_line.charged,
               CASE WHEN each_line.line = 13 THEN 0 ELSE COALESCE(price_version_id, 0) END, each_line.discount,
               count(*), sum(each_line.quantity), sum(each_line.list_cost_pico), sum(each_line.cost_pico)
          FROM ledger.usage_record
         CROSS JOIN LATERAL unnest(
               line, line_quantity, line_discount, line_cost_pico, line_list_cost_pico, line_charged
           ) AS each_line (line, quantity, discount, cost_pico, list_cost_pico, charged)
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    """)
    op.execute("""
        INSERT INTO ledger.record_day
        SELECT organization_id, (hour AT TIME ZONE 'UTC')::date, sum(request_count), sum(unpriced_count),
               sum(cost_pico), sum(saved_pico), sum(charged_pico)
          FROM ledger.usage_hour
         GROUP BY 1, 2
    """)


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
