"""The published views, as far as they are read here. ARCHITECTURE.md says what each column means."""

from sqlalchemy import column, table

from services.reporting.summaries import FIGURES

organization = table(
    "organization",
    column("organization_id"),
    column("retention_days"),
    column("retention_floor"),
    column("retention_class"),
    schema="reporting",
)

detail_class = table("detail_class", column("retention_class"), schema="reporting")

project = table("project", column("organization_id"), column("project_id"), schema="reporting")

api_key = table("api_key", column("api_key_id"), column("organization_id"), column("project_id"), schema="reporting")

# What figures are kept by, beside the time.
FIGURES_KEY = ("organization_id", "project_id", "api_key_id", "model", "provider", "funding", "workflow")

usage_hour = table("usage_hour", *map(column, ("hour", *FIGURES_KEY, "refused_count", *FIGURES)), schema="reporting")

usage_day = table("usage_day", *map(column, ("day", *FIGURES_KEY, "refused_count", *FIGURES)), schema="reporting")

# What durations and failures of a day are kept by, beside the day.
CALLS_KEY = ("organization_id", "project_id", "provider", "model", "workflow")

latency_day = table(
    "latency_day",
    *map(column, ("day", *CALLS_KEY, "latency_histogram", "time_to_first_token_histogram")),
    schema="reporting",
)

failure_day = table(
    "failure_day", *map(column, ("day", *CALLS_KEY, "status", "error_type", "failure_count")), schema="reporting"
)

# Quantities of a call that are shown under the same name.
USAGE = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "reasoning_tokens",
    "output_image_tokens",
    "output_audio_tokens",
    "output_images",
    "web_searches",
)

# What a list of calls shows of each.
SUMMARY = (
    "organization_id",
    "request_id",
    "start_time",
    "project_id",
    "api_key_id",
    "endpoint",
    "workflow",
    "requested_model",
    "model",
    "provider",
    "status",
    "error_type",
    "funding",
    "streamed",
    "cache_hit",
    "latency_ms",
    "time_to_first_token_ms",
    "metadata",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cost_pico",
)

# What a single call shows beside that.
DETAIL = ("usage_source", "flags", "price_version_id", "discount", "saved_pico", "charged_pico", "unpriced")

USAGE_RECORD = tuple(dict.fromkeys((*SUMMARY, *DETAIL, *USAGE)))

usage_record = table(
    "usage_record", *map(column, ("request_day", "retention_class", "outcome", *USAGE_RECORD)), schema="reporting"
)

cost_line = table(
    "cost_line",
    *map(
        column,
        (
            "organization_id",
            "request_day",
            "request_id",
            "retention_class",
            "line_number",
            "line",
            "quantity",
            "unit_price",
            "discount",
            "cost_pico",
            "list_cost_pico",
            "charged",
        ),
    ),
    schema="reporting",
)

# What is shown of a retained payload.
PAYLOAD = ("request_body", "request_content_type", "response_body", "response_content_type")

payload = table(
    "payload",
    *map(column, ("organization_id", "request_day", "request_id", "retention_class", *PAYLOAD)),
    schema="reporting",
)
