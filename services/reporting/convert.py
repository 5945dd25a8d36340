"""Figures as the wire has them. Here, and nowhere before, whole numbers and pico-USD become doubles."""

from datetime import UTC, datetime

from services.common.money import nearest_double, usd_from_pico
from services.reporting.retention import Retention
from services.reporting.summaries import BreakdownRow, Dimension, PeriodSummary, percentage
from services.reporting.view import View
from tollgate.reporting.v1 import activity_service_pb2 as activity_pb

_BREAKDOWN_OF = {
    Dimension.API_KEY: "api_key_breakdown",
    Dimension.PROVIDER: "provider_breakdown",
    Dimension.WORKFLOW: "workflow_breakdown",
}


def activity_to_proto(summaries: list[PeriodSummary], dimension: Dimension) -> activity_pb.GetActivityResponse:
    return activity_pb.GetActivityResponse(activity=[_period_to_proto(summary, dimension) for summary in summaries])


def metadata_to_wire(view: View, as_of: datetime, retention: Retention | None) -> tuple[tuple[str, str], ...]:
    """The initial metadata of an answer; over REST they are headers. Retention is that of one organization."""
    as_of_header = ("x-tollgate-as-of", time_to_wire(as_of, "milliseconds"))
    if view.organization_id is None or retention is None:
        return (as_of_header,)
    return as_of_header, ("x-tollgate-retention-days", str(retention.days))


def time_to_wire(moment: datetime, precision: str = "microseconds") -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _period_to_proto(summary: PeriodSummary, dimension: Dimension) -> activity_pb.ActivityPeriod:
    total, credits_part, own_keys_part = summary.figures.total, summary.figures.credits, summary.figures.own_keys
    period = activity_pb.ActivityPeriod(
        date=summary.label,
        request_count=total.request_count,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        total_tokens=total.total_tokens,
        cached_tokens=total.cached_input_tokens,
        cost=nearest_double(total.cost_pico),
        input_cost=nearest_double(total.whole_input_cost_pico),
        output_cost=nearest_double(total.whole_output_cost_pico),
        cached_input_cost=nearest_double(total.cached_input_cost_pico),
        cache_write_input_cost=nearest_double(total.cache_write_cost_pico),
        request_cost=nearest_double(total.whole_request_cost_pico),
        web_search_cost=nearest_double(total.web_search_cost_pico),
        data_storage_cost=nearest_double(total.data_storage_cost_pico),
        image_input_cost=nearest_double(total.image_input_cost_pico),
        image_output_cost=nearest_double(total.image_output_cost_pico),
        audio_input_cost=nearest_double(total.audio_input_cost_pico),
        audio_output_cost=nearest_double(total.audio_output_cost_pico),
        error_count=total.error_count,
        error_rate=percentage(total.error_count, total.request_count),
        client_error_count=total.client_error_count,
        cache_count=total.cache_count,
        cache_rate=percentage(total.cache_count, total.request_count),
        discount_savings=nearest_double(total.saved_pico),
        credits_request_count=credits_part.request_count,
        api_keys_request_count=own_keys_part.request_count,
        credits_cost=nearest_double(credits_part.cost_pico),
        api_keys_cost=nearest_double(own_keys_part.cost_pico),
        credits_data_storage_cost=nearest_double(credits_part.data_storage_cost_pico),
        api_keys_data_storage_cost=nearest_double(own_keys_part.data_storage_cost_pico),
        cost_exact=usd_from_pico(total.cost_pico),
        charged_exact=usd_from_pico(total.charged_pico),
        model_breakdown=map(_breakdown_to_proto, summary.by_model),
    )
    if dimension in _BREAKDOWN_OF:
        getattr(period, _BREAKDOWN_OF[dimension]).extend(map(_breakdown_to_proto, summary.by_group))
    return period


def _breakdown_to_proto(row: BreakdownRow) -> activity_pb.ActivityBreakdown:
    total, credits_part, own_keys_part = row.figures.total, row.figures.credits, row.figures.own_keys
    return activity_pb.ActivityBreakdown(
        id=row.id,
        provider=row.provider,
        request_count=total.request_count,
        error_count=total.error_count,
        cache_count=total.cache_count,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        total_tokens=total.total_tokens,
        cached_tokens=total.cached_input_tokens,
        cost=nearest_double(total.cost_pico),
        credits_request_count=credits_part.request_count,
        api_keys_request_count=own_keys_part.request_count,
        credits_cost=nearest_double(credits_part.cost_pico),
        api_keys_cost=nearest_double(own_keys_part.cost_pico),
    )
