"""Figures as the wire has them. Here, and nowhere before, whole numbers and pico-USD become doubles."""

from datetime import UTC, datetime
from typing import Any

from services.common.money import nearest_double, usd_from_pico
from services.reporting.periods import Timeline
from services.reporting.retention import Retention
from services.reporting.summaries import Breakdown, Dimension, Figures, PeriodSummary, Split, percentage
from services.reporting.view import View
from tollgate.reporting.v1 import activity_service_pb2 as activity_pb

_BREAKDOWN_OF = {
    Dimension.API_KEY: "api_key_breakdown",
    Dimension.PROVIDER: "provider_breakdown",
    Dimension.WORKFLOW: "workflow_breakdown",
}


def activity_to_proto(summaries: list[PeriodSummary], dimension: Dimension) -> activity_pb.GetActivityResponse:
    answer = activity_pb.GetActivityResponse()
    for summary in summaries:
        # Added where they belong: a message that is put into another is copied, and most of an answer is breakdowns.
        period = answer.activity.add(date=summary.label, **_figures_to_wire(summary.figures))
        _add_breakdown(period.model_breakdown, summary.by_model)
        if dimension in _BREAKDOWN_OF:
            _add_breakdown(getattr(period, _BREAKDOWN_OF[dimension]), summary.by_group)
    return answer


def metadata_to_wire(view: View, as_of: datetime, retention: Retention | None) -> tuple[tuple[str, str], ...]:
    """The initial metadata of an answer; over REST they are headers. Retention is that of one organization."""
    as_of_header = ("x-tollgate-as-of", time_to_wire(as_of, "milliseconds"))
    if view.organization_id is None or retention is None:
        return (as_of_header,)
    return as_of_header, ("x-tollgate-retention-days", str(retention.days))


def time_to_wire(moment: datetime, precision: str = "microseconds") -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _figures_to_wire(figures: Split) -> dict[str, Any]:
    """The fields that periods and summaries have in common."""
    total, credits_part, own_keys_part = figures.total, figures.credits, figures.own_keys
    return {
        "request_count": total.request_count,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "total_tokens": total.total_tokens,
        "cached_tokens": total.cached_input_tokens,
        "cost": nearest_double(total.cost_pico),
        "input_cost": nearest_double(total.whole_input_cost_pico),
        "output_cost": nearest_double(total.whole_output_cost_pico),
        "cached_input_cost": nearest_double(total.cached_input_cost_pico),
        "cache_write_input_cost": nearest_double(total.cache_write_cost_pico),
        "request_cost": nearest_double(total.whole_request_cost_pico),
        "web_search_cost": nearest_double(total.web_search_cost_pico),
        "data_storage_cost": nearest_double(total.data_storage_cost_pico),
        "image_input_cost": nearest_double(total.image_input_cost_pico),
        "image_output_cost": nearest_double(total.image_output_cost_pico),
        "audio_input_cost": nearest_double(total.audio_input_cost_pico),
        "audio_output_cost": nearest_double(total.audio_output_cost_pico),
        "error_count": total.error_count,
        "error_rate": percentage(total.error_count, total.request_count),
        "client_error_count": total.client_error_count,
        "cache_count": total.cache_count,
        "cache_rate": percentage(total.cache_count, total.request_count),
        "discount_savings": nearest_double(total.saved_pico),
        "credits_request_count": credits_part.request_count,
        "api_keys_request_count": own_keys_part.request_count,
        "credits_cost": nearest_double(credits_part.cost_pico),
        "api_keys_cost": nearest_double(own_keys_part.cost_pico),
        "credits_data_storage_cost": nearest_double(credits_part.data_storage_cost_pico),
        "api_keys_data_storage_cost": nearest_double(own_keys_part.data_storage_cost_pico),
        "cost_exact": usd_from_pico(total.cost_pico),
        "charged_exact": usd_from_pico(total.charged_pico),
    }


def summary_to_proto(timeline: Timeline, figures: Split) -> activity_pb.GetActivitySummaryResponse:
    """The whole of a timeline that was asked for."""
    savings_pico = figures.own_keys.cost_pico - figures.own_keys.data_storage_cost_pico
    return activity_pb.GetActivitySummaryResponse(
        from_date=timeline.periods[0].label,
        to_date=timeline.periods[-1].label,
        credits=_funding_to_proto(figures.credits),
        api_keys=_funding_to_proto(figures.own_keys),
        api_keys_savings=nearest_double(savings_pico),
        api_keys_savings_exact=usd_from_pico(savings_pico),
        **_figures_to_wire(figures),
    )


def _funding_to_proto(part: Figures) -> activity_pb.FundingSummary:
    return activity_pb.FundingSummary(
        request_count=part.request_count,
        error_count=part.error_count,
        input_tokens=part.input_tokens,
        output_tokens=part.output_tokens,
        total_tokens=part.total_tokens,
        cost=nearest_double(part.cost_pico),
        data_storage_cost=nearest_double(part.data_storage_cost_pico),
        cost_exact=usd_from_pico(part.cost_pico),
        charged_exact=usd_from_pico(part.charged_pico),
    )


def _add_breakdown(messages: Any, breakdown: list[Breakdown]) -> None:
    for row in breakdown:
        messages.add(
            id=row.id,
            provider=row.provider,
            request_count=row.request_count,
            error_count=row.request_count - row.success_count,
            cache_count=row.cache_count,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            total_tokens=row.input_tokens + row.output_tokens,
            cached_tokens=row.cached_input_tokens,
            cost=nearest_double(row.cost_pico),
            credits_request_count=row.request_count - row.own_key_request_count,
            api_keys_request_count=row.own_key_request_count,
            credits_cost=nearest_double(row.cost_pico - row.own_key_cost_pico),
            api_keys_cost=nearest_double(row.own_key_cost_pico),
        )
