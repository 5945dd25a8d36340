"""Usage records, the figures summed from them, and the books.

Everything that one batch of finished calls writes, in one transaction. Detail and keys are partitioned by day, so that
they expire by DETACH and DROP; figures and books stay.
"""

from alembic import op

from services.ledger.storage.migrations.access import open_table, protect_tenant_table, publish_view

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The names of tollgate.ledger.v1's cost lines, in the order of their numbers from 1.
LINES = (
    "input",
    "cached_input",
    "cache_write",
    "image_input",
    "audio_input",
    "output",
    "reasoning_output",
    "image_output",
    "audio_output",
    "request",
    "web_search",
    "rejection",
    "data_storage",
)
HOUR_KEY = "organization_id, hour, project_id, api_key_id, model, provider, funding, workflow"
HOUR_COUNTS = (
    "request_count",
    "success_count",
    "client_error_count",
    "refused_count",
    "cache_count",
    "streamed_count",
    "unpriced_count",
)
HOUR_SUMS = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    *(f"{line}_cost_pico" for line in LINES),
    "cost_pico",
    "saved_pico",
    "charged_pico",
    "latency_ms_sum",
)


def upgrade() -> None:
    _create_functions()
    _create_record_key()
    _create_usage_record()
    _create_usage_hour()
    _create_books()
    _create_producer_cursor()
    _create_rejected_record()
    _publish_views()


def _create_functions() -> None:
    # CHECK constraints cannot hold subqueries; PL/pgSQL's loop costs a microsecond, an aggregate over unnest four.
    op.execute("""
        CREATE FUNCTION ledger.lines_add_up(
            cost_pico BIGINT[], list_cost_pico BIGINT[], charged BOOLEAN[],
            record_cost_pico BIGINT, record_saved_pico BIGINT, record_charged_pico BIGINT
        ) RETURNS BOOLEAN LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            cost_sum BIGINT := 0;
            list_sum BIGINT := 0;
            charged_sum BIGINT := 0;
        BEGIN
            FOR i IN 1 .. cardinality(cost_pico) LOOP
                cost_sum := cost_sum + cost_pico[i];
                list_sum := list_sum + list_cost_pico[i];
                IF charged[i] THEN
                    charged_sum := charged_sum + cost_pico[i];
                END IF;
            END LOOP;
            -- A record without a price has no cost; what it has of lines is not the whole of it.
            RETURN (record_cost_pico IS NULL OR record_cost_pico = cost_sum)
               AND record_saved_pico = list_sum - cost_sum
               AND record_charged_pico = charged_sum;
        END
        $$
    """)
    op.execute("""
        CREATE FUNCTION ledger.sum_of(amounts NUMERIC[]) RETURNS NUMERIC
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN (SELECT sum(amount) FROM unnest(amounts) AS amount)
    """)


def _create_record_key() -> None:
    op.execute("""
        -- Which records are in the books, by id. Outlives the detail by 40 days, so that a repeat is still recognised.
        CREATE TABLE ledger.record_key (
            organization_id UUID NOT NULL,
            -- The day in UTC of the time in request_id.
            request_day     DATE NOT NULL,
            request_id      UUID NOT NULL,
            content_hash    BYTEA NOT NULL CHECK (octet_length(content_hash) = 16),
            batch_id        UUID NOT NULL,
            PRIMARY KEY (organization_id, request_day, request_id)
        ) PARTITION BY RANGE (request_day)
    """)
    protect_tenant_table(op, "record_key", reported=False, owned_by_ledger=True)


def _create_usage_record() -> None:
    op.execute("""
        -- One finished client call and what it cost. Columns of fixed width come first: the ledger packs them as one.
        CREATE TABLE ledger.usage_record (
            -- The organization's plan when the record came: tollgate.ledger.v1.Plan. Decides when the record expires.
            retention_class           SMALLINT NOT NULL,
            request_day               DATE NOT NULL,
            organization_id           UUID NOT NULL,
            request_id                UUID NOT NULL,
            api_key_id                UUID NOT NULL,
            -- The transaction that wrote it, and the journal entry that charged it.
            batch_id                  UUID NOT NULL,
            start_time                TIMESTAMPTZ NOT NULL,
            -- tollgate.ledger.v1.Endpoint, Outcome, Funding and UsageSource
            endpoint                  SMALLINT NOT NULL,
            outcome                   SMALLINT NOT NULL,
            funding                   SMALLINT NOT NULL,
            usage_source              SMALLINT NOT NULL,
            status                    SMALLINT NOT NULL,
            streamed                  BOOLEAN NOT NULL,
            cache_hit                 BOOLEAN NOT NULL,
            payload_retained          BOOLEAN NOT NULL,
            unpriced                  BOOLEAN NOT NULL,
            latency_ms                INTEGER NOT NULL,
            saved_pico                BIGINT NOT NULL,
            charged_pico              BIGINT NOT NULL,
            -- NULL when unknown: an unpriced record costs an unknown amount, not zero.
            cost_pico                 BIGINT,
            price_version_id          BIGINT,
            time_to_first_token_ms    INTEGER,
            -- All NULL when nothing is known of the usage.
            input_tokens              BIGINT,
            output_tokens             BIGINT,
            cached_input_tokens       BIGINT,
            cache_write_tokens        BIGINT,
            cache_write_1h_tokens     BIGINT,
            input_audio_tokens        BIGINT,
            cached_input_audio_tokens BIGINT,
            input_image_tokens        BIGINT,
            -- NULL also when the provider did not say.
            cached_input_image_tokens BIGINT,
            reasoning_tokens          BIGINT,
            output_image_tokens       BIGINT,
            output_audio_tokens       BIGINT,
            input_images              BIGINT,
            output_images             BIGINT,
            web_searches              BIGINT,
            project_id                TEXT NOT NULL,
            workflow                  TEXT NOT NULL,
            requested_model           TEXT NOT NULL,
            model                     TEXT NOT NULL,
            provider                  TEXT NOT NULL,
            error_type                TEXT NOT NULL,
            service_tier              TEXT NOT NULL,
            -- tollgate.ledger.v1.RecordFlag
            flags                     SMALLINT[] NOT NULL,
            -- The discount that applied, 0 for none.
            discount                  NUMERIC NOT NULL CHECK (discount BETWEEN 0 AND 1),
            metadata                  JSONB NOT NULL,
            -- tollgate.ledger.v1.Attempt, in order
            attempts                  JSONB NOT NULL,
            -- tollgate.ledger.v1.OutputImages; NULL when there are none.
            output_image_kinds        JSONB,
            -- The cost lines, one element each in all six.
            line                      SMALLINT[] NOT NULL,
            line_quantity             BIGINT[] NOT NULL,
            line_unit_price           NUMERIC[] NOT NULL,
            line_discount             NUMERIC[] NOT NULL,
            line_cost_pico            BIGINT[] NOT NULL,
            line_list_cost_pico       BIGINT[] NOT NULL,
            line_charged              BOOLEAN[] NOT NULL,

            -- Ids carry their time, so this order is also "newest last".
            PRIMARY KEY (organization_id, request_id, request_day, retention_class),
            CONSTRAINT usage_record_lines_are_whole CHECK (
                cardinality(line_quantity) = cardinality(line)
                AND cardinality(line_unit_price) = cardinality(line)
                AND cardinality(line_discount) = cardinality(line)
                AND cardinality(line_cost_pico) = cardinality(line)
                AND cardinality(line_list_cost_pico) = cardinality(line)
                AND cardinality(line_charged) = cardinality(line)
            ),
            CONSTRAINT usage_record_lines_add_up CHECK (
                ledger.lines_add_up(
                    line_cost_pico, line_list_cost_pico, line_charged, cost_pico, saved_pico, charged_pico
                )
            ),
            CONSTRAINT usage_record_without_price_has_no_cost CHECK (unpriced = (cost_pico IS NULL))
        ) PARTITION BY RANGE (retention_class, request_day)
    """)
    protect_tenant_table(op, "usage_record", owned_by_ledger=True)


def _create_usage_hour() -> None:
    counts = "".join(f"{name} BIGINT NOT NULL,\n" for name in HOUR_COUNTS)
    sums = "".join(f"{name} NUMERIC(38,0) NOT NULL,\n" for name in HOUR_SUMS)
    op.execute(f"""
        -- What the records of an hour add up to, by everything that figures are asked by. Written with the records.
        CREATE TABLE ledger.usage_hour (
            organization_id UUID NOT NULL,
            -- The hour in UTC of the record's start_time.
            hour            TIMESTAMPTZ NOT NULL,
            project_id      TEXT NOT NULL,
            api_key_id      UUID NOT NULL,
            model           TEXT NOT NULL,
            provider        TEXT NOT NULL,
            funding         SMALLINT NOT NULL,
            workflow        TEXT NOT NULL,
            {counts}
            {sums}
            PRIMARY KEY ({HOUR_KEY})
        ) WITH (fillfactor = 60)  -- room to update a row in its page, without touching the index
    """)
    protect_tenant_table(op, "usage_hour")


def _create_books() -> None:
    op.execute("""
        -- Where an organization's journal has got to. Its row is the lock on the organization's books.
        CREATE TABLE ledger.book (
            organization_id UUID PRIMARY KEY,
            sequence        BIGINT NOT NULL CHECK (sequence >= 1)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "book")
    op.execute("""
        -- What was booked. Never changed: a correction is a new entry.
        CREATE TABLE ledger.journal_entry (
            organization_id UUID NOT NULL,
            -- From 1, without gaps.
            sequence        BIGINT NOT NULL CHECK (sequence >= 1),
            -- services.ledger.books.journal.EntryKind
            kind            SMALLINT NOT NULL,
            -- For usage the batch_id of the records, for a grant its grant_id.
            reference       TEXT NOT NULL,
            create_time     TIMESTAMPTZ NOT NULL,
            -- services.ledger.books.journal.Account, in pico-USD, one element each in both.
            accounts        SMALLINT[] NOT NULL,
            amounts         NUMERIC(38,0)[] NOT NULL,
            PRIMARY KEY (organization_id, sequence),
            CONSTRAINT journal_entry_is_whole CHECK (
                cardinality(amounts) >= 2 AND cardinality(amounts) = cardinality(accounts)
            ),
            CONSTRAINT journal_entry_sums_to_zero CHECK (ledger.sum_of(amounts) = 0)
        )
    """)
    protect_tenant_table(op, "journal_entry", append_only=True)
    op.execute("""
        -- What the journal entries of an account add up to.
        CREATE TABLE ledger.balance (
            organization_id UUID NOT NULL,
            account         SMALLINT NOT NULL,
            amount_pico     NUMERIC(38,0) NOT NULL,
            -- The last journal entry that changed it.
            sequence        BIGINT NOT NULL,
            PRIMARY KEY (organization_id, account)
        ) WITH (fillfactor = 50)
    """)
    protect_tenant_table(op, "balance")
    op.execute("""
        -- Credit that was added, by the id its giver chose.
        CREATE TABLE ledger.credit_grant (
            organization_id UUID NOT NULL REFERENCES ledger.organization,
            grant_id        TEXT NOT NULL,
            -- tollgate.ledger.v1.CreditKind
            kind            SMALLINT NOT NULL CHECK (kind IN (1, 2)),
            amount_pico     NUMERIC(38,0) NOT NULL CHECK (amount_pico > 0),
            -- The journal entry that booked it.
            sequence        BIGINT NOT NULL,
            -- What could be spent after it.
            balance_pico    NUMERIC(38,0) NOT NULL,
            create_time     TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (organization_id, grant_id)
        )
    """)
    protect_tenant_table(op, "credit_grant", append_only=True, reported=False)


def _create_producer_cursor() -> None:
    op.execute("""
        -- Up to where each producer's log is dealt with. Kept for ever: what lies before is never taken again.
        CREATE TABLE ledger.producer_cursor (
            producer_id        UUID NOT NULL,
            epoch              BIGINT NOT NULL CHECK (epoch >= 1),
            committed_sequence BIGINT NOT NULL CHECK (committed_sequence >= 1),
            PRIMARY KEY (producer_id, epoch)
        ) WITH (fillfactor = 50)
    """)
    open_table(op, "producer_cursor")


def _create_rejected_record() -> None:
    op.execute("""
        -- Records that could not be taken, as they came, for an operator to look at. Not split by organization: whose
        -- a broken record is may be what is broken.
        CREATE TABLE ledger.rejected_record (
            -- SHA-256 of the record: sent again, it is the same row.
            record_hash  BYTEA PRIMARY KEY CHECK (octet_length(record_hash) = 32),
            -- tollgate.ledger.v1.RecordStatus: CONFLICT or INVALID
            status       SMALLINT NOT NULL CHECK (status IN (3, 4)),
            reason       TEXT NOT NULL,
            -- NULL and 0 for records without a producer.
            producer_id  UUID,
            epoch        BIGINT NOT NULL,
            sequence     BIGINT NOT NULL,
            -- A tollgate.ledger.v1.UsageRecord, serialized, without its sequence.
            record       BYTEA NOT NULL,
            receipt_time TIMESTAMPTZ NOT NULL
        )
    """)
    open_table(op, "rejected_record", append_only=True)


def _publish_views() -> None:
    hour_columns = ", ".join((*HOUR_COUNTS, *HOUR_SUMS))
    publish_view(op, "usage_hour", f"SELECT {HOUR_KEY}, {hour_columns} FROM ledger.usage_hour")  # noqa: S608
    publish_view(
        op,
        "usage_record",
        """
        SELECT organization_id, request_day, request_id, start_time, project_id, api_key_id, endpoint, workflow,
               requested_model, model, provider, outcome, status, error_type, funding, streamed, cache_hit, latency_ms,
               time_to_first_token_ms, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens,
               cache_write_1h_tokens, input_audio_tokens, cached_input_audio_tokens, input_image_tokens,
               cached_input_image_tokens, reasoning_tokens, output_image_tokens, output_audio_tokens, input_images,
               output_images, web_searches, usage_source, service_tier, metadata, attempts, flags, price_version_id,
               discount, cost_pico, saved_pico, charged_pico, unpriced
          FROM ledger.usage_record
        """,
    )
    names = ", ".join(f"'{line.upper()}'" for line in LINES)
    publish_view(
        op,
        "cost_line",
        f"""
        SELECT organization_id, request_day, request_id, line_number,
               (ARRAY[{names}])[each_line.line] AS line,
               each_line.quantity, each_line.unit_price, each_line.discount, each_line.cost_pico,
               each_line.list_cost_pico, each_line.charged
          FROM ledger.usage_record
         CROSS JOIN LATERAL unnest(
               line, line_quantity, line_unit_price, line_discount, line_cost_pico, line_list_cost_pico, line_charged
           ) WITH ORDINALITY AS each_line (
               line, quantity, unit_price, discount, cost_pico, list_cost_pico, charged, line_number
           )
        """,  # noqa: S608
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
