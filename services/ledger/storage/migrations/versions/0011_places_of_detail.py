"""Readers can say where the detail they ask for lies, so that no question touches partitions it needs nothing of.

A year of detail has hundreds of partitions. A question that names neither class nor days plans, locks and visits all.
"""

from alembic import op

from services.ledger.storage.migrations.access import extend_view, publish_view

revision = "0011"
down_revision = "0010"
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


def upgrade() -> None:
    _tell_classes()
    _extend_detail()


def _tell_classes() -> None:
    op.execute("""
        -- As services.ledger.retention.retention.retention_class has it.
        CREATE FUNCTION ledger.retention_class(retention_days INTEGER)
        RETURNS SMALLINT LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE WHEN retention_days IN (3, 90) THEN retention_days ELSE (retention_days + 4) / 5 * 5 END
    """)
    extend_view(
        op,
        "organization",
        """
        SELECT organization_id, display_name, plan, retention_days, payload_retained,
               -- What had expired when the plan changed does not come back, though it may still be on disk.
               change.retention_floor,
               -- Where all its detail lies. NULL while a change of plan is being carried out: then in any class.
               CASE WHEN change.retention_floor IS NULL THEN ledger.retention_class(retention_days) END
                   AS retention_class
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
    publish_view(
        op,
        "detail_class",
        """
        SELECT DISTINCT substring(relname FROM '^usage_record_(\\d{3})_')::smallint AS retention_class
          FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'ledger.usage_record'::regclass
        """,
    )


def _extend_detail() -> None:
    extend_view(
        op,
        "usage_record",
        """
        SELECT organization_id, request_day, request_id, start_time, project_id, api_key_id, endpoint, workflow,
               requested_model, model, provider, outcome, status, error_type, funding, streamed, cache_hit, latency_ms,
               time_to_first_token_ms, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens,
               cache_write_1h_tokens, input_audio_tokens, cached_input_audio_tokens, input_image_tokens,
               cached_input_image_tokens, reasoning_tokens, output_image_tokens, output_audio_tokens, input_images,
               output_images, web_searches, usage_source, service_tier, metadata, attempts, flags, price_version_id,
               discount, cost_pico, saved_pico, charged_pico, unpriced, retention_class
          FROM ledger.usage_record
        """,
    )
    names = ", ".join(f"'{line.upper()}'" for line in LINES)
    extend_view(
        op,
        "cost_line",
        f"""
        SELECT organization_id, request_day, request_id, line_number,
               (ARRAY[{names}])[each_line.line] AS line,
               each_line.quantity, each_line.unit_price, each_line.discount, each_line.cost_pico,
               each_line.list_cost_pico, each_line.charged, retention_class
          FROM ledger.usage_record
         CROSS JOIN LATERAL unnest(
               line, line_quantity, line_unit_price, line_discount, line_cost_pico, line_list_cost_pico, line_charged
           ) WITH ORDINALITY AS each_line (
               line, quantity, unit_price, discount, cost_pico, list_cost_pico, charged, line_number
           )
        """,  # noqa: S608
    )
    extend_view(
        op,
        "payload",
        """
        SELECT organization_id, request_day, request_id, start_time, request_content_type, request_body,
               request_truncated, response_content_type, response_body, response_truncated, retention_class
          FROM ledger.payload
        """,
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger goes forward only; restore a backup to go back")
