"""The summary is the sum of the days it covers, with who paid side by side."""

from datetime import timedelta

import pytest

from tests.contract.reporting.books import NOW, Books, Customer
from tests.contract.reporting.reporting_server import SECONDS, Reporting, refusal_of
from tollgate.reporting.v1.activity_service_pb2 import GetActivitySummaryRequest, GetActivitySummaryResponse

DAY = timedelta(days=1)
NO_SUMS = {"from_date", "to_date", "credits", "api_keys", "api_keys_savings", "api_keys_savings_exact"}


async def summary(reporting: Reporting, customer: Customer, **parameters: str) -> GetActivitySummaryResponse:
    request = GetActivitySummaryRequest(**parameters)
    answer: GetActivitySummaryResponse = await reporting.summaries.GetActivitySummary(
        request, metadata=customer.key.metadata, timeout=SECONDS
    )
    return answer


@pytest.fixture(scope="module")
def acme(books: Books) -> Customer:
    customer = books.customer(payload_retained=True)
    books.record(
        customer.call(payload_retained=True),
        customer.own_key_call(at=NOW - DAY, payload_retained=True),
        customer.failed_call(at=NOW - 2 * DAY),
    )
    return customer


@pytest.mark.parametrize(
    "parameters", [{}, {"days": "2"}, {"timezone": "Asia/Kolkata"}, {"project_id": "web"}], ids=str
)
async def test_every_sum_is_that_of_the_days(reporting: Reporting, acme: Customer, parameters: dict[str, str]) -> None:
    days = await reporting.activity(acme.key, **parameters)

    whole = await summary(reporting, acme, **parameters)

    for field in GetActivitySummaryResponse.DESCRIPTOR.fields:
        if field.name not in NO_SUMS and not field.name.endswith(("_rate", "_exact")):
            total = sum(getattr(day, field.name) for day in days)
            assert getattr(whole, field.name) == pytest.approx(total, rel=1e-12), field.name


async def test_credits_and_own_keys_stand_side_by_side(reporting: Reporting, acme: Customer) -> None:
    whole = await summary(reporting, acme)

    # 0.0045 each, and 0.000012 for keeping 1,200 tokens, which credits pay in any case.
    assert (whole.credits.request_count, whole.credits.error_count, whole.credits.cost_exact) == (2, 1, "0.004512")
    assert (whole.api_keys.request_count, whole.api_keys.cost_exact) == (1, "0.004512")
    assert (whole.credits.charged_exact, whole.api_keys.charged_exact) == ("0.004512", "0.000012")
    assert (whole.cost_exact, whole.charged_exact, whole.api_keys_savings_exact) == ("0.009024", "0.004524", "0.0045")
    assert whole.error_rate == pytest.approx(100 / 3)


async def test_the_days_it_covers_are_named_also_where_nothing_was_called(reporting: Reporting, acme: Customer) -> None:
    whole = await summary(reporting, acme, from_date="2026-01-01", to_date="2026-01-31")

    assert (whole.from_date, whole.to_date, whole.request_count, whole.cost_exact) == (
        "2026-01-01",
        "2026-01-31",
        0,
        "0",
    )


async def test_a_wrong_parameter_is_named(reporting: Reporting, acme: Customer) -> None:
    assert (await refusal_of(summary(reporting, acme, to_date="2026-01-31"))).field == "from"
