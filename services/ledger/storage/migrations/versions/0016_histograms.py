"""Counts of durations become one number, which PostgreSQL adds by itself: a third of the time of a function that adds
arrays, for each call that is recorded and for each question about percentiles.

Of each bucket a number has twelve decimal digits, bucket 0 the last twelve. A trillion calls in one bucket would spill
over into the next; that is years of all that a ledger can record.
"""

from alembic import op

from services.ledger.storage.migrations.access import extend_view

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_KEY = "organization_id, day, project_id, provider, model, workflow"
_DURATIONS = ("latency", "time_to_first_token")


def upgrade() -> None:
    _create_functions()
    for name in _DURATIONS:
        op.execute(f"ALTER TABLE ledger.latency_day ADD COLUMN {name}_histogram NUMERIC NOT NULL DEFAULT 0")
    _fill()
    _extend_view()
    for name in _DURATIONS:
        op.execute(f"ALTER TABLE ledger.latency_day ALTER COLUMN {name}_histogram DROP DEFAULT")
        op.execute(f"ALTER TABLE ledger.latency_day DROP COLUMN {name}_counts")
    op.execute("DROP AGGREGATE ledger.sum_of_counts(INTEGER[])")
    op.execute("DROP FUNCTION ledger.add_counts(INTEGER[], INTEGER[])")
    op.execute("DROP FUNCTION ledger.counts_of(INTEGER[])")


def _create_functions() -> None:
    op.execute("""
        -- One call in this bucket.
        CREATE FUNCTION ledger.histogram_of(bucket INTEGER) RETURNS NUMERIC
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN ('1e' || (12 * bucket)::text)::numeric
    """)
    op.execute("""
        -- How many there are of each bucket: an array whose subscripts are buckets. NULL is none.
        CREATE FUNCTION ledger.counts_in(histogram NUMERIC) RETURNS INTEGER[]
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        DECLARE
            counts INTEGER[] := '{}';
            bucket INTEGER := 0;
            digits TEXT := repeat('0', 11) || histogram::text;
            more BIGINT;
        BEGIN
            WHILE length(digits) >= 12 LOOP
                more := right(digits, 12)::bigint;
                IF more > 0 THEN
                    counts[bucket] := more;
                END IF;
                digits := left(digits, -12);
                bucket := bucket + 1;
            END LOOP;
            RETURN counts;
        END
        $$
    """)


def _fill() -> None:
    filled = ", ".join(
        f"""{name}_histogram = (
            SELECT COALESCE(sum(count * ledger.histogram_of(array_lower({name}_counts, 1) + place::integer - 1)), 0)
              FROM unnest({name}_counts) WITH ORDINALITY AS each (count, place))"""  # noqa: S608 columns of ours
        for name in _DURATIONS
    )
    op.execute(f"UPDATE ledger.latency_day SET {filled}")  # noqa: S608 columns of ours


def _extend_view() -> None:
    counts = ", ".join(f"ledger.counts_in({name}_histogram) AS {name}_counts" for name in _DURATIONS)
    histograms = ", ".join(f"{name}_histogram" for name in _DURATIONS)
    extend_view(op, "latency_day", f"SELECT {_KEY}, {counts}, {histograms} FROM ledger.latency_day")  # noqa: S608 ours


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
