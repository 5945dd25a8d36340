"""Figures by the day, so that questions over months read days; how long calls took and how they failed, so that
percentiles and failures need no detail.

All are written with the records, and go with the hours they are made of.
"""

from alembic import op

from services.ledger.storage.migrations.access import protect_tenant_table, publish_view

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

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
DAY_KEY = "organization_id, day, project_id, api_key_id, model, provider, funding, workflow"
CALLS_KEY = "organization_id, day, project_id, provider, model, workflow"
COUNTS = (
    "request_count",
    "success_count",
    "client_error_count",
    "refused_count",
    "cache_count",
    "streamed_count",
    "unpriced_count",
)
SUMS = (
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
    _create_usage_day()
    _create_latency_day()
    _create_failure_day()
    _fill()
    _publish_views()


def _create_functions() -> None:
    op.execute("""
        -- The bucket of a duration: what took more than 1.03^(n-1) and at most 1.03^n milliseconds is in bucket n.
        CREATE FUNCTION ledger.latency_bucket(milliseconds INTEGER) RETURNS INTEGER
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE WHEN milliseconds <= 1 THEN 0 ELSE ceil(ln(milliseconds::float8) / ln(1.03::float8))::integer END
    """)
    op.execute("""
        -- How many there are of each bucket: an array whose subscripts are buckets. NULL is none.
        CREATE FUNCTION ledger.counts_of(buckets INTEGER[]) RETURNS INTEGER[]
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            counts INTEGER[] := '{}';
            bucket INTEGER;
        BEGIN
            IF buckets IS NOT NULL THEN
                FOREACH bucket IN ARRAY buckets LOOP
                    counts[bucket] := COALESCE(counts[bucket], 0) + 1;
                END LOOP;
            END IF;
            RETURN counts;
        END
        $$
    """)
    op.execute("""
        CREATE FUNCTION ledger.add_counts(counts INTEGER[], added INTEGER[]) RETURNS INTEGER[]
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            more INTEGER;
        BEGIN
            IF counts = '{}' THEN
                RETURN added;
            END IF;
            FOR bucket IN COALESCE(array_lower(added, 1), 1) .. COALESCE(array_upper(added, 1), 0) LOOP
                more := added[bucket];
                IF more > 0 THEN
                    counts[bucket] := COALESCE(counts[bucket], 0) + more;
                END IF;
            END LOOP;
            RETURN counts;
        END
        $$
    """)


def _create_usage_day() -> None:
    counts = "".join(f"{name} BIGINT NOT NULL,\n" for name in COUNTS)
    sums = "".join(f"{name} NUMERIC(38,0) NOT NULL,\n" for name in SUMS)
    op.execute(f"""
        -- What the hours of a day in UTC add up to: always exactly the rows of usage_hour that are there.
        CREATE TABLE ledger.usage_day (
            organization_id UUID NOT NULL,
            day             DATE NOT NULL,
            project_id      TEXT NOT NULL,
            api_key_id      UUID NOT NULL,
            model           TEXT NOT NULL,
            provider        TEXT NOT NULL,
            funding         SMALLINT NOT NULL,
            workflow        TEXT NOT NULL,
            {counts}
            {sums}
            PRIMARY KEY ({DAY_KEY})
        ) WITH (fillfactor = 60)  -- room to update a row in its page, without touching the index
    """)
    protect_tenant_table(op, "usage_day")


def _create_latency_day() -> None:
    op.execute(f"""
        -- How long the calls of a day in UTC took: counts by bucket, an array's subscript being its bucket. Calls that
        -- were refused, or that a crash cut off, are not in here.
        CREATE TABLE ledger.latency_day (
            organization_id            UUID NOT NULL,
            day                        DATE NOT NULL,
            project_id                 TEXT NOT NULL,
            provider                   TEXT NOT NULL,
            model                      TEXT NOT NULL,
            workflow                   TEXT NOT NULL,
            latency_counts             INTEGER[] NOT NULL,
            -- Of those that had a first token.
            time_to_first_token_counts INTEGER[] NOT NULL,
            PRIMARY KEY ({CALLS_KEY})
        ) WITH (fillfactor = 60)
    """)
    protect_tenant_table(op, "latency_day")


def _create_failure_day() -> None:
    op.execute(f"""
        -- How the calls of a day in UTC failed: those that were not answered with a 2xx.
        CREATE TABLE ledger.failure_day (
            organization_id UUID NOT NULL,
            day             DATE NOT NULL,
            project_id      TEXT NOT NULL,
            provider        TEXT NOT NULL,
            model           TEXT NOT NULL,
            workflow        TEXT NOT NULL,
            status          SMALLINT NOT NULL,
            error_type      TEXT NOT NULL,
            failure_count   BIGINT NOT NULL CHECK (failure_count > 0),
            PRIMARY KEY ({CALLS_KEY}, status, error_type)
        ) WITH (fillfactor = 60)
    """)
    protect_tenant_table(op, "failure_day")


def _fill() -> None:
    sums = ", ".join(f"sum({name})" for name in (*COUNTS, *SUMS))
    op.execute(f"""
        INSERT INTO ledger.usage_day
        SELECT organization_id, (hour AT TIME ZONE 'UTC')::date, project_id, api_key_id, model, provider, funding,
               workflow, {sums}
          FROM ledger.usage_hour
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    """)  # noqa: S608 columns of ours
    op.execute("""
        INSERT INTO ledger.latency_day
        SELECT organization_id, request_day, project_id, provider, model, workflow,
               ledger.counts_of(array_agg(ledger.latency_bucket(latency_ms))),
               ledger.counts_of(array_agg(ledger.latency_bucket(time_to_first_token_ms))
                   FILTER (WHERE time_to_first_token_ms IS NOT NULL))
          FROM ledger.usage_record
         WHERE outcome NOT IN (8, 9)
         GROUP BY organization_id, request_day, project_id, provider, model, workflow
    """)
    op.execute("""
        INSERT INTO ledger.failure_day
        SELECT organization_id, request_day, project_id, provider, model, workflow, status, error_type, count(*)
          FROM ledger.usage_record
         WHERE status NOT BETWEEN 200 AND 299
         GROUP BY organization_id, request_day, project_id, provider, model, workflow, status, error_type
    """)


def _publish_views() -> None:
    figures = ", ".join((*COUNTS, *SUMS))
    publish_view(op, "usage_day", f"SELECT {DAY_KEY}, {figures} FROM ledger.usage_day")  # noqa: S608
    publish_view(
        op,
        "latency_day",
        f"SELECT {CALLS_KEY}, latency_counts, time_to_first_token_counts FROM ledger.latency_day",  # noqa: S608
    )
    publish_view(
        op,
        "failure_day",
        f"SELECT {CALLS_KEY}, status, error_type, failure_count FROM ledger.failure_day",  # noqa: S608
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
