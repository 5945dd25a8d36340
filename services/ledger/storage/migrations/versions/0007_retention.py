"""How long everything stays: detail by the days it was promised for, payloads with it, and a record of what went.

Detail was kept by plan. Enterprise terms differ, so a partition now holds what is kept equally long, and expires as a
whole; its day is that of the call's start, which is what retention counts from.
"""

from alembic import op

from services.ledger.storage.migrations.access import (
    OWN_ORGANIZATION,
    REPORTING,
    REPORTING_OPERATOR,
    extend_view,
    open_table,
    protect_tenant_table,
    publish_view,
)

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _keep_detail_by_days()
    _create_payload()
    _create_limit()
    _create_expiry()
    _create_leader()


def _keep_detail_by_days() -> None:
    # As services.ledger.retention.retention.retention_class has it.
    op.execute("""
        COMMENT ON COLUMN ledger.usage_record.retention_class IS
            'Days the record is kept: those of its organization when it came, rounded up to whole classes'
    """)
    op.execute("COMMENT ON COLUMN ledger.usage_record.request_day IS 'The day in UTC of start_time'")
    op.execute("""
        DO $$
        DECLARE
            partition RECORD;
            place     RECORD;
            name      TEXT;
        BEGIN
            CREATE TEMPORARY TABLE moved (LIKE ledger.usage_record) ON COMMIT DROP;
            FOR partition IN
                SELECT inhrelid::regclass AS name FROM pg_inherits WHERE inhparent = 'ledger.usage_record'::regclass
            LOOP
                EXECUTE format('INSERT INTO moved SELECT * FROM %s', partition.name);
                EXECUTE format('ALTER TABLE ledger.usage_record DETACH PARTITION %s', partition.name);
                EXECUTE format('DROP TABLE %s', partition.name);
            END LOOP;
            UPDATE moved
               SET request_day = (start_time AT TIME ZONE 'UTC')::date,
                   retention_class = CASE
                       WHEN organization.retention_days = 3 THEN 3
                       ELSE 5 * ceil(organization.retention_days / 5.0)
                   END
              FROM ledger.organization
             WHERE organization.organization_id = moved.organization_id;
            FOR place IN SELECT DISTINCT retention_class AS class, request_day AS day FROM moved LOOP
                name := format('usage_record_%s_%s', to_char(place.class, 'FM000'), to_char(place.day, 'YYYYMMDD'));
                EXECUTE format(
                    'CREATE TABLE ledger.%I PARTITION OF ledger.usage_record FOR VALUES FROM (%L, %L) TO (%L, %L)',
                    name, place.class, place.day, place.class, place.day + 1
                );
                EXECUTE format('ALTER TABLE ledger.%I OWNER TO tollgate_ledger', name);
            END LOOP;
            INSERT INTO ledger.usage_record SELECT * FROM moved;
        END
        $$
    """)


def _create_payload() -> None:
    op.execute("""
        -- What was asked and answered, where the organization retains it. Expires with its usage_record, never later.
        CREATE TABLE ledger.payload (
            retention_class       SMALLINT NOT NULL,
            request_day           DATE NOT NULL,
            organization_id       UUID NOT NULL,
            request_id            UUID NOT NULL,
            start_time            TIMESTAMPTZ NOT NULL,
            request_truncated     BOOLEAN NOT NULL,
            response_truncated    BOOLEAN NOT NULL,
            request_content_type  TEXT NOT NULL,
            response_content_type TEXT NOT NULL,
            -- Compressed with zlib by the router. Empty when there was none.
            request_body          BYTEA NOT NULL,
            response_body         BYTEA NOT NULL,
            PRIMARY KEY (organization_id, request_id, request_day, retention_class)
        ) PARTITION BY RANGE (retention_class, request_day)
    """)
    for body in ("request_body", "response_body"):
        # It will not get any smaller.
        op.execute(f"ALTER TABLE ledger.payload ALTER COLUMN {body} SET STORAGE EXTERNAL")
    protect_tenant_table(op, "payload", owned_by_ledger=True)
    publish_view(
        op,
        "payload",
        """
        SELECT organization_id, request_day, request_id, start_time, request_content_type, request_body,
               request_truncated, response_content_type, response_body, response_truncated
          FROM ledger.payload
        """,
    )


def _create_limit() -> None:
    op.execute("""
        -- From when on an organization sees its records: the one place where that is decided. A day has 24 hours here,
        -- whatever the clocks of the session's time zone do.
        CREATE FUNCTION ledger.kept_since(as_of TIMESTAMPTZ, retention_days INTEGER, retention_floor TIMESTAMPTZ)
        RETURNS TIMESTAMPTZ LANGUAGE sql STABLE PARALLEL SAFE
        RETURN GREATEST(as_of - retention_days * INTERVAL '24 hours', retention_floor)
    """)
    op.execute("""
        -- Changes of plan that are carried out on disk: what they hid is gone, the rest lies where it is kept as long
        -- as it should. A change that is not here yet shows in retention_floor.
        CREATE TABLE ledger.plan_settlement (
            organization_id UUID NOT NULL,
            -- Of the row of organization_plan.
            valid_from      TIMESTAMPTZ NOT NULL,
            settle_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, valid_from),
            FOREIGN KEY (organization_id, valid_from) REFERENCES ledger.organization_plan
        )
    """)
    protect_tenant_table(op, "plan_settlement", append_only=True)
    # The view below reads it on behalf of its reader.
    op.execute(
        f"CREATE POLICY reporting ON ledger.organization_plan FOR SELECT TO {REPORTING} USING ({OWN_ORGANIZATION})"
    )
    op.execute(
        f"CREATE POLICY reporting_operator ON ledger.organization_plan FOR SELECT TO {REPORTING_OPERATOR} USING (true)"
    )
    op.execute(f"GRANT SELECT ON ledger.organization_plan TO {REPORTING}, {REPORTING_OPERATOR}")
    extend_view(
        op,
        "organization",
        """
        SELECT organization_id, display_name, plan, retention_days, payload_retained,
               -- What had expired when the plan changed does not come back, though it may still be on disk.
               change.retention_floor
          FROM ledger.organization
          LEFT JOIN (
               SELECT organization_id, max(valid_from - days_before * INTERVAL '24 hours') AS retention_floor
                 FROM (
                      SELECT organization_id, valid_from,
                             lag(retention_days) OVER (PARTITION BY organization_id ORDER BY valid_from) AS days_before
                        FROM ledger.organization_plan
                      ) AS plan
                 LEFT JOIN ledger.plan_settlement AS settled USING (organization_id, valid_from)
                WHERE settled.settle_time IS NULL
                GROUP BY organization_id
               ) AS change USING (organization_id)
        """,
    )


def _create_expiry() -> None:
    op.execute("""
        -- What expired: the rows that are gone, and what they added up to. Never changed. At any moment, for each
        -- organization and day, detail and its expiries together are record_day; so are hourly figures and theirs.
        CREATE TABLE ledger.expiry (
            organization_id UUID NOT NULL,
            -- The day in UTC of the records' start_time; for keys, of the time in their id.
            day             DATE NOT NULL,
            -- services.ledger.retention.retention.Kept
            kind            SMALLINT NOT NULL,
            -- UUIDv7, one for everything that went in one transaction.
            expiry_id       UUID NOT NULL,
            expire_time     TIMESTAMPTZ NOT NULL,
            -- The partition that was dropped or deleted from; empty for hourly figures.
            partition_name  TEXT NOT NULL,
            row_count       BIGINT NOT NULL CHECK (row_count > 0),
            -- NULL for payloads and keys, which have no sums.
            record_count    BIGINT,
            unpriced_count  BIGINT,
            cost_pico       NUMERIC(38,0),
            saved_pico      NUMERIC(38,0),
            charged_pico    NUMERIC(38,0),
            -- Retention asks for a day of all organizations.
            PRIMARY KEY (day, organization_id, kind, expiry_id, partition_name),
            CONSTRAINT expiry_sums_are_whole CHECK (
                num_nulls(record_count, unpriced_count, cost_pico, saved_pico, charged_pico) IN (0, 5)
            )
        )
    """)
    protect_tenant_table(op, "expiry", append_only=True, reported=False)
    op.execute("CREATE INDEX expiry_newest ON ledger.expiry (organization_id, expiry_id)")
    op.execute("""
        -- What was not allowed to expire, because it does not add up to what was recorded.
        CREATE TABLE ledger.retention_problem (
            organization_id UUID NOT NULL,
            day             DATE NOT NULL,
            -- services.ledger.retention.retention.Kept
            kind            SMALLINT NOT NULL,
            -- Sums by name, as strings of whole numbers, where they differ: what was recorded, and what is there.
            expected        JSONB NOT NULL,
            found           JSONB NOT NULL,
            first_time      TIMESTAMPTZ NOT NULL,
            last_time       TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, day, kind)
        )
    """)
    protect_tenant_table(op, "retention_problem", reported=False)


def _create_leader() -> None:
    op.execute("""
        -- Who does what only one ledger at a time should do. Whoever holds a row renews it before it ends.
        CREATE TABLE ledger.leader (
            task       TEXT PRIMARY KEY,
            holder     UUID NOT NULL,
            lease_end  TIMESTAMPTZ NOT NULL
        )
    """)
    open_table(op, "leader")


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
