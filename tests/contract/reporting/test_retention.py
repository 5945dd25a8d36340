"""The limit of what a plan shows, with a clock that is stepped across it, on every path that reads."""

import zlib
from datetime import timedelta

import grpc
import pytest

from tests.contract.reporting.books import NOW, Books, Customer, Key
from tests.contract.reporting.reporting_server import Reporting, refusal_of
from tollgate.ledger.v1.usage_pb2 import Payload, UsageRecord

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RETAINED = Payload(
    request_body=zlib.compress(b"asked"),
    request_content_type="application/json",
    response_body=zlib.compress(b"answered"),
    response_content_type="text/event-stream",
)


@pytest.fixture
def operator(books: Books) -> Key:
    return books.key(None)


async def is_shown(reporting: Reporting, customer: Customer, call: UsageRecord) -> set[bool]:
    """Whether each path that reads single calls shows the call."""
    operator = {"organization_id": customer.organization_id}
    shown = {bool((await reporting.list(customer.key)).requests), (await reporting.list(customer.key)).total == 1}
    try:
        whole = await reporting.get(customer.key, call.request_id)
        shown |= {True, bool(whole.cost_lines), whole.request_body == "asked", whole.response_body == "answered"}
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        shown.add(False)
    shown.add(bool((await reporting.list(customer.key, status="ok", **operator)).requests))
    return shown


@pytest.mark.parametrize("retention_days", [3, 90, 365, 1, 31])
async def test_a_call_is_shown_a_microsecond_before_its_limit_and_gone_a_microsecond_after(
    books: Books, reporting: Reporting, retention_days: int
) -> None:
    customer = books.customer(retention_days=retention_days, payload_retained=True)
    call = customer.call(at=NOW + 123_456 * MICROSECOND, payload_retained=True, payload=RETAINED)
    books.record(call)
    limit = NOW + 123_456 * MICROSECOND + retention_days * DAY

    reporting.clock.time = limit - MICROSECOND
    assert await is_shown(reporting, customer, call) == {True}

    reporting.clock.time = limit
    assert await is_shown(reporting, customer, call) == {True}

    reporting.clock.time = limit + MICROSECOND
    assert await is_shown(reporting, customer, call) == {False}


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Kolkata", "America/New_York"])
async def test_an_hour_of_figures_stays_until_all_of_it_is_past(
    books: Books, reporting: Reporting, operator: Key, timezone: str
) -> None:
    free = books.customer(retention_days=3)
    hour = NOW.replace(minute=0)
    books.record(*(free.call(at=moment) for moment in (hour, hour + HOUR - MICROSECOND, hour + HOUR)))

    async def counted() -> set[float]:
        days = await reporting.activity(free.key, days="7", timezone=timezone)
        by_operator = await reporting.activity(
            operator, days="7", timezone=timezone, organization_id=free.organization_id
        )
        return {sum(day.request_count for day in days), sum(day.request_count for day in by_operator)}

    reporting.clock.time = hour + 3 * DAY + HOUR - MICROSECOND
    assert await counted() == {3}

    reporting.clock.time = hour + 3 * DAY + HOUR
    assert await counted() == {1}


async def test_a_smaller_plan_hides_from_the_moment_of_the_change(books: Books, reporting: Reporting) -> None:
    customer = books.customer(payload_retained=True)
    call = customer.call(at=NOW - 4 * DAY, payload_retained=True, payload=RETAINED)
    books.record(call)
    assert await is_shown(reporting, customer, call) == {True}

    books.change_retention(customer.organization_id, 3, NOW)

    assert await is_shown(reporting, customer, call) == {False}
    assert await reporting.activity(customer.key, days="30") == []


async def test_a_larger_plan_keeps_what_is_shown_and_brings_nothing_back(books: Books, reporting: Reporting) -> None:
    customer = books.customer(retention_days=3)
    gone, kept = customer.call(at=NOW - 3 * DAY - MICROSECOND), customer.call(at=NOW - 3 * DAY)
    books.record(gone, kept, customer.call(at=NOW - 3 * DAY - HOUR))

    books.change_retention(customer.organization_id, 90, NOW)
    reporting.clock.time = NOW + 10 * DAY

    listed = await reporting.list(customer.key)
    assert [row.id for row in listed.requests] == [kept.request_id]
    assert (await refusal_of(reporting.get(customer.key, gone.request_id))).code is grpc.StatusCode.NOT_FOUND
    # The hour of the change is shown as it was shown before.
    assert [day.request_count for day in await reporting.activity(customer.key, days="30")] == [2]


async def test_changes_of_several_plans_hide_what_any_of_them_hid(books: Books, reporting: Reporting) -> None:
    customer = books.customer()
    books.record(customer.call(at=NOW - 5 * DAY), customer.call(at=NOW - 2 * DAY), customer.call(at=NOW))
    books.change_retention(customer.organization_id, 1, NOW)
    books.change_retention(customer.organization_id, 365, NOW + MICROSECOND)

    reporting.clock.time = NOW + DAY

    assert (await reporting.list(customer.key)).total == 1


async def test_a_year_of_history_is_shown_for_a_year(books: Books, reporting: Reporting) -> None:
    customer = books.customer(retention_days=365)
    for day in range(0, 400, 5):
        books.record(customer.call(at=NOW - day * DAY), receipt_time=NOW - day * DAY + MICROSECOND)

    assert (await reporting.list(customer.key)).total == 74
    days = await reporting.activity(customer.key, days="365")
    assert sum(day.request_count for day in days) == 73
    by_dates = await reporting.activity(customer.key, from_date="2025-05-20", to_date="2026-05-20")
    assert sum(day.request_count for day in by_dates) == 74


# Payloads


async def test_a_retained_payload_is_shown_as_it_was_sent(books: Books, reporting: Reporting) -> None:
    customer = books.customer(payload_retained=True)
    asked, answered = '{"messages": [{"content": "grüezi 🙂"}]}', 'data: {"a": 1}\n\ndata: [DONE]\n\n'
    call = customer.call(
        payload_retained=True,
        payload=Payload(
            request_body=zlib.compress(asked.encode()),
            request_content_type="application/json",
            response_body=zlib.compress(answered.encode()),
            response_content_type="text/event-stream",
        ),
    )
    books.record(call)

    whole = await reporting.get(customer.key, call.request_id)

    assert (whole.request_body, whole.request_content_type) == (asked, "application/json")
    assert (whole.response_body, whole.response_content_type) == (answered, "text/event-stream")
    assert not whole.request_body_is_base64
    assert not whole.response_body_is_base64


async def test_without_a_payload_there_are_no_bodies(books: Books, reporting: Reporting) -> None:
    customer = books.customer(payload_retained=True)
    call = customer.call(payload_retained=True)
    books.record(call)

    whole = await reporting.get(customer.key, call.request_id)

    assert (whole.request_body, whole.response_body, whole.request_content_type) == ("", "", "")


async def test_nobody_sees_the_payload_of_another(books: Books, reporting: Reporting) -> None:
    customer, acme = books.customer(payload_retained=True), books.customer()
    # The same id in two organizations.
    call = customer.call(payload_retained=True, payload=RETAINED)
    own = acme.call(request_id=call.request_id)
    books.record(call, own)

    assert (await reporting.get(acme.key, own.request_id)).request_body == ""
    assert (await reporting.get(customer.key, call.request_id)).request_body == "asked"
