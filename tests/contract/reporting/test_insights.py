"""Overviews, percentiles and failures."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value

from tests.contract.reporting.books import NOW, Books, Customer
from tests.contract.reporting.reporting_server import SECONDS, Reporting, refusal_of
from tollgate.reporting.v1 import insight_service_pb2 as pb

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
NULL = Value(null_value=0)  # type: ignore[arg-type]


async def ask(reporting: Reporting, customer: Customer, method: str, **parameters: str) -> Any:
    request = getattr(pb, f"{method}Request")(**parameters)
    return await getattr(reporting.insights, method)(request, metadata=customer.key.metadata, timeout=SECONDS)


@pytest.fixture
def acme(books: Books) -> Customer:
    return books.customer()


async def test_an_overview_without_calls_has_its_days_and_no_percentiles(reporting: Reporting, acme: Customer) -> None:
    overview = await ask(reporting, acme, "GetOverview", days="3")

    assert [(point.date, point.requests) for point in overview.chart] == [
        ("2026-05-18", 0),
        ("2026-05-19", 0),
        ("2026-05-20", 0),
    ]
    assert (overview.latency_p50_ms, overview.time_to_first_token_p50_ms) == (NULL, NULL)
    assert (list(overview.top_providers), overview.fail_rate, overview.cost) == ([], 0, 0)


async def test_an_overview_names_the_five_busiest(books: Books, reporting: Reporting, acme: Customer) -> None:
    for number in range(6):
        books.record(*(acme.call(model=f"model-{number}") for _ in range(number + 1)))

    overview = await ask(reporting, acme, "GetOverview")

    assert list(overview.top_providers) == [f"openai:model-{number}" for number in (5, 4, 3, 2, 1)]


async def test_filters_of_an_overview_hold_for_all_of_it(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.record(
        acme.call(workflow="search", latency_ms=100, time_to_first_token_ms=50),
        acme.failed_call(provider="azure", latency_ms=9_000),
    )

    search = await ask(reporting, acme, "GetOverview", workflow="search")
    azure = await ask(reporting, acme, "GetOverview", provider="azure")

    assert (sum(point.requests for point in search.chart), search.fail_rate, search.tokens) == (1, 0, 1_200)
    assert search.latency_p99_ms.number_value == pytest.approx(100, rel=0.02)
    assert search.time_to_first_token_p50_ms.number_value == pytest.approx(50, rel=0.02)
    assert (azure.fail_rate, azure.cost, list(azure.top_providers)) == (100, 0, ["azure:gpt-4o"])
    assert azure.time_to_first_token_p50_ms == NULL


@pytest.mark.parametrize("scale", [1, 37, 1_000])
async def test_percentiles_are_within_two_per_cent_of_the_exact_ones(
    books: Books, reporting: Reporting, acme: Customer, scale: int
) -> None:
    durations = [scale * number for number in range(1, 101)]
    books.record(*(acme.call(latency_ms=one, time_to_first_token_ms=max(1, one // 2)) for one in durations))

    (group,) = (await ask(reporting, acme, "GetLatency")).groups

    assert group.requests == 100
    for percent in (50, 95, 99):
        exact = durations[percent - 1]
        assert getattr(group, f"latency_p{percent}_ms") == pytest.approx(exact, rel=0.02)
        first_token = getattr(group, f"time_to_first_token_p{percent}_ms").number_value
        assert first_token == pytest.approx(max(1, exact // 2), rel=0.02)


@pytest.mark.parametrize(
    ("group_by", "keys"), [("provider", ["openai", "azure"]), ("model", ["gpt-4o"]), ("workflow", ["", "search"])]
)
async def test_percentiles_are_by_group_and_day_the_busiest_first(
    books: Books, reporting: Reporting, acme: Customer, group_by: str, keys: list[str]
) -> None:
    books.record(acme.call(), acme.call(at=NOW - DAY), acme.call(provider="azure", workflow="search"))
    books.record(acme.refused_call())

    answer = await ask(reporting, acme, "GetLatency", group_by=group_by)

    assert [group.key for group in answer.groups] == keys
    assert sum(group.requests for group in answer.groups) == sum(day.requests for day in answer.daily) == 3
    assert [(day.date, day.key) for day in answer.daily] == sorted((day.date, day.key) for day in answer.daily)


async def test_failures_are_told_apart_by_whose_they_are(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.record(
        acme.call(),
        acme.failed_call(),
        acme.failed_call(at=NOW - MINUTE),
        acme.failed_call(at=NOW - DAY, status=504, error_type="timeout", provider="azure"),
        acme.refused_call(),
    )

    answer = await ask(reporting, acme, "GetFailures")

    assert (answer.total_failures, answer.client_failures, answer.provider_failures) == (4, 1, 3)
    assert [
        (one.side, one.status, one.error_type, one.provider, one.model, one.failures) for one in answer.failures
    ] == [
        ("provider", 502, "status", "openai", "gpt-4o", 2),
        ("provider", 504, "timeout", "azure", "gpt-4o", 1),
        ("client", 429, "rate_limited", "", "", 1),
    ]
    assert [(day.date, day.client_failures, day.provider_failures) for day in answer.daily] == [
        ("2026-05-19", 0, 1),
        ("2026-05-20", 1, 2),
    ]


@pytest.mark.parametrize(
    ("method", "parameters", "field"),
    [
        ("GetOverview", {"days": "0"}, "days"),
        ("GetLatency", {"group_by": "project"}, "group_by"),
        ("GetFailures", {"days": "1.5"}, "days"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_is_named(
    reporting: Reporting, acme: Customer, method: str, parameters: dict[str, str], field: str
) -> None:
    assert (await refusal_of(ask(reporting, acme, method, **parameters))).field == field
