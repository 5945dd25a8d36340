"""What analytics counts, and what it leaves out."""

from datetime import timedelta

import pytest

from tests.contract.reporting.books import NOW, Books, Customer, Key
from tests.contract.reporting.reporting_server import SECONDS, Reporting, refusal_of
from tollgate.ledger.v1.usage_pb2 import FUNDING_CREDITS, Attempt
from tollgate.reporting.v1.analytics_service_pb2 import GetAnalyticsRequest, GetAnalyticsResponse

DAY = timedelta(days=1)


async def analytics(reporting: Reporting, key: Key, **parameters: str) -> GetAnalyticsResponse:
    request = GetAnalyticsRequest(**parameters)
    answer: GetAnalyticsResponse = await reporting.analytics.GetAnalytics(
        request, metadata=key.metadata, timeout=SECONDS
    )
    return answer


@pytest.fixture
def acme(books: Books) -> Customer:
    return books.customer()


async def test_without_calls_every_number_is_zero(reporting: Reporting, acme: Customer) -> None:
    answer = await analytics(reporting, acme.key)

    assert (answer.total_requests, answer.success_rate, list(answer.daily), dict(answer.providers)) == (0, 0, [], {})
    assert answer.group_by == "provider"


async def test_a_rescued_call_is_one_success_of_who_answered(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    tries = [
        Attempt(provider=name, upstream_model="gpt-4o", funding=FUNDING_CREDITS, status=status)
        for name, status in (("openai", 503), ("azure", 200))
    ]
    books.record(acme.call(provider="azure", attempts=tries))

    answer = await analytics(reporting, acme.key)

    assert {name: (one.requests, one.successful, one.failed) for name, one in answer.providers.items()} == {
        "azure": (1, 1, 0)
    }


async def test_calls_refused_before_any_attempt_do_not_count(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(acme.call(), acme.failed_call(), acme.refused_call())

    answer = await analytics(reporting, acme.key)

    assert (answer.total_requests, answer.successful_requests, answer.failed_requests) == (2, 1, 1)
    assert answer.success_rate == 0.5
    assert {*answer.models} == {"gpt-4o"}


@pytest.mark.parametrize("group_by", ["provider", "model", "project"])
async def test_totals_are_the_sums_by_each_thing_and_by_day(
    books: Books, reporting: Reporting, acme: Customer, group_by: str
) -> None:
    books.record(
        acme.call(),
        acme.call(at=NOW - DAY, provider="azure", project_id="lab"),
        acme.failed_call(at=NOW - 30 * DAY),
        acme.own_key_call(at=NOW - 30 * DAY, model="unheard-of"),
        receipt_time=NOW,
    )

    answer = await analytics(reporting, acme.key, group_by=group_by)

    for counts in (
        answer.providers.values(),
        answer.models.values(),
        answer.projects.values(),
        answer.daily,
        answer.daily_breakdown,
    ):
        assert sum(one.requests for one in counts) == answer.total_requests == 4
        assert sum(one.successful for one in counts) == answer.successful_requests == 3
        assert sum(one.failed for one in counts) == answer.failed_requests == 1
    assert {row.key for row in answer.daily_breakdown} == {
        *{"provider": answer.providers, "model": answer.models, "project": answer.projects}[group_by]
    }


async def test_days_are_the_last_ones_and_without_them_all_that_the_plan_shows(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    free = books.customer(retention_days=3)
    for customer in (acme, free):
        books.record(*(customer.call(at=NOW - number * DAY) for number in (0, 6, 7, 30)), receipt_time=NOW)

    asked = [(await analytics(reporting, acme.key, days=days)).total_requests for days in ("1", "7", "8", "")]
    of_free = (await analytics(reporting, free.key)).total_requests

    assert (asked, of_free) == ([1, 2, 3, 4], 1)


async def test_an_unknown_project_is_nothing_to_an_operator_and_refused_to_others(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(acme.call())

    answer = await analytics(reporting, books.key(None), project_id="nowhere")
    refusal = await refusal_of(analytics(reporting, acme.key, project_id="nowhere"))

    assert (answer.total_requests, answer.success_rate) == (0, 0)
    assert refusal.reason == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"group_by": "colour"}, "group_by"),
        ({"group_by": "Provider"}, "group_by"),
        ({"days": "0"}, "days"),
        ({"days": "366"}, "days"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_is_named(
    reporting: Reporting, acme: Customer, parameters: dict[str, str], field: str
) -> None:
    assert (await refusal_of(analytics(reporting, acme.key, **parameters))).field == field
