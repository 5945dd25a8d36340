"""The insight family as the wire has it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, Value

from services.common.money import nearest_double
from services.reporting.insights import Durations, Failure, Traffic, by_day, by_kind, together
from services.reporting.periods import Timeline
from services.reporting.summaries import percentage
from tollgate.reporting.v1 import insight_service_pb2 as pb

TOP_PROVIDERS = 5


def overview_to_proto(
    timeline: Timeline,
    traffic_by_day: Mapping[int, Traffic],
    traffic_by_model: Mapping[tuple[str, str], Traffic],
    durations: Durations,
) -> pb.GetOverviewResponse:
    total = reduce(Traffic.plus, traffic_by_day.values(), Traffic())
    return pb.GetOverviewResponse(
        chart=[
            _point_to_proto(period.label, traffic_by_day.get(number, Traffic()))
            for number, period in enumerate(timeline.periods)
        ],
        top_providers=_top_providers(traffic_by_model),
        latency_p50_ms=number_or_null(durations.latency_ms(50)),
        latency_p95_ms=number_or_null(durations.latency_ms(95)),
        latency_p99_ms=number_or_null(durations.latency_ms(99)),
        time_to_first_token_p50_ms=number_or_null(durations.first_token_ms(50)),
        fail_rate=percentage(total.requests - total.successful, total.requests),
        tokens=total.tokens,
        cost=nearest_double(total.cost_pico),
    )


def latency_to_proto(
    timeline: Timeline, grouping: str, durations: Mapping[tuple[Any, ...], Durations]
) -> pb.GetLatencyResponse:
    """The durations are by the number of the day and the key."""
    by_key: defaultdict[str, list[Durations]] = defaultdict(list)
    for (_, key), one in durations.items():
        by_key[key].append(one)
    groups = sorted(((key, together(parts)) for key, parts in by_key.items()), key=lambda g: (-g[1].calls, g[0]))
    return pb.GetLatencyResponse(
        group_by=grouping,
        groups=[pb.LatencyGroup(key=key, **_percentiles(one)) for key, one in groups],
        daily=[
            pb.LatencyDay(date=timeline.periods[day].label, key=key, **_percentiles(one))
            for (day, key), one in sorted(durations.items())
        ],
    )


def failures_to_proto(timeline: Timeline, failures: Sequence[Failure]) -> pb.GetFailuresResponse:
    clients = sum(one.call_count for one in failures if one.is_clients)
    total = sum(one.call_count for one in failures)
    return pb.GetFailuresResponse(
        total_failures=total,
        client_failures=clients,
        provider_failures=total - clients,
        failures=[
            pb.FailureGroup(
                side="client" if kind.is_clients else "provider",
                status=kind.status,
                error_type=kind.error_type,
                provider=kind.provider,
                model=kind.model,
                failures=count,
            )
            for kind, count in by_kind(failures)
        ],
        daily=[
            pb.FailureDay(date=timeline.periods[day].label, client_failures=client, provider_failures=provider)
            for day, client, provider in by_day(failures)
        ],
    )


def number_or_null(number: float | None) -> Value:
    return Value(null_value=NULL_VALUE) if number is None else Value(number_value=number)


def _point_to_proto(date: str, traffic: Traffic) -> pb.OverviewPoint:
    return pb.OverviewPoint(
        date=date, requests=traffic.requests, tokens=traffic.tokens, cost=nearest_double(traffic.cost_pico)
    )


def _top_providers(by_model: Mapping[tuple[str, str], Traffic]) -> list[str]:
    """Calls that no provider was tried for have none."""
    ranked = sorted(by_model, key=lambda pair: (-by_model[pair].requests, pair))
    return [f"{provider}:{model}" for provider, model in ranked if provider][:TOP_PROVIDERS]


def _percentiles(durations: Durations) -> dict[str, Any]:
    return {
        "requests": durations.calls,
        "latency_p50_ms": durations.latency_ms(50),
        "latency_p95_ms": durations.latency_ms(95),
        "latency_p99_ms": durations.latency_ms(99),
        "time_to_first_token_p50_ms": number_or_null(durations.first_token_ms(50)),
        "time_to_first_token_p95_ms": number_or_null(durations.first_token_ms(95)),
        "time_to_first_token_p99_ms": number_or_null(durations.first_token_ms(99)),
    }
