"""Lists of calls and single calls."""

from datetime import UTC, timedelta
from decimal import Decimal

import pytest
from google.protobuf.json_format import MessageToDict

from tests.contract.reporting.books import NOW, Books, Customer
from tests.contract.reporting.reporting_server import Reporting, refusal_of
from tollgate.ledger.v1.usage_pb2 import (
    FUNDING_CREDITS,
    FUNDING_OWN_KEY,
    OUTCOME_CLIENT_ERROR,
    RECORD_FLAG_RECOVERED,
    USAGE_SOURCE_ESTIMATED,
    Attempt,
    Usage,
)

SECOND = timedelta(seconds=1)


@pytest.fixture
def acme(books: Books) -> Customer:
    return books.customer()


async def test_a_row_says_what_happened(books: Books, reporting: Reporting, acme: Customer) -> None:
    call = acme.call(
        requested_model="gpt-4o-latest", workflow="chat", streamed=True, metadata={"env": "prod"}, cache_hit=False
    )
    books.record(call)

    (row,) = (await reporting.list(acme.key)).requests

    assert MessageToDict(row, preserving_proto_field_name=True, always_print_fields_with_no_presence=True) == {
        "id": call.request_id,
        "timestamp": "2026-05-20T10:30:00.000000Z",
        "project_id": "web",
        "api_key_id": acme.key.api_key_id,
        "endpoint": "chat_completions",
        "workflow": "chat",
        "requested_model": "gpt-4o-latest",
        "model": "gpt-4o",
        "provider": "openai",
        "status": 200,
        "error": "",
        "latency_ms": 820,
        "time_to_first_token_ms": 310,
        "streamed": True,
        "cached": False,
        "funding": "credits",
        "input_tokens": 1_000,
        "output_tokens": 200,
        "cost": 0.0045,
        "attempt_count": 1,
        "metadata": {"env": "prod"},
    }


async def test_what_is_unknown_is_null_and_not_zero(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.record(
        acme.call(at=NOW - SECOND, model="nobody-priced-it", time_to_first_token_ms=None),
        acme.failed_call(at=NOW - 2 * SECOND),
        acme.call(at=NOW - 3 * SECOND, usage=Usage()),
    )

    unpriced, failed, empty = (await reporting.list(acme.key)).requests

    assert unpriced.cost.HasField("null_value")
    assert unpriced.time_to_first_token_ms.HasField("null_value")
    assert unpriced.input_tokens.number_value == 1_000
    assert failed.input_tokens.HasField("null_value")
    assert failed.output_tokens.HasField("null_value")
    assert failed.cost.HasField("number_value")
    assert failed.error == "status"
    assert empty.input_tokens.HasField("number_value")
    assert empty.cost.number_value == 0


async def test_pages_show_every_call_once_newest_first(books: Books, reporting: Reporting, acme: Customer) -> None:
    calls = [acme.call(at=NOW - number * timedelta(hours=7)) for number in range(11)]
    books.record(*calls)

    shown: list[str] = []
    token = ""
    while True:
        page = await reporting.list(acme.key, limit="3", page_token=token)
        assert page.total == 11
        assert len(page.requests) == min(3, 11 - len(shown))
        shown += [row.id for row in page.requests]
        token = page.next_page_token
        if not token:
            break

    assert shown == [call.request_id for call in calls]


async def test_a_page_that_ends_with_the_last_call_is_the_last(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(acme.call(), acme.call())

    assert (await reporting.list(acme.key, limit="2")).next_page_token == ""
    assert (await reporting.list(books.customer().key)).total == 0


async def test_calls_that_come_in_between_pages_move_nothing(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    older, newer = acme.call(at=NOW - 2 * SECOND), acme.call(at=NOW - SECOND)
    books.record(older, newer)

    first = await reporting.list(acme.key, limit="1")
    books.record(acme.call(at=NOW))
    second = await reporting.list(acme.key, limit="1", page_token=first.next_page_token)

    assert [row.id for row in (*first.requests, *second.requests)] == [newer.request_id, older.request_id]


async def test_a_page_token_is_good_for_its_filters_only(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.record(acme.call(), acme.call())
    token = (await reporting.list(acme.key, limit="1", model="gpt-4o")).next_page_token

    await reporting.list(acme.key, limit="2", model="gpt-4o", page_token=token)
    for other in ({}, {"model": "other"}, {"model": "gpt-4o", "status": "ok"}):
        refusal = await refusal_of(reporting.list(acme.key, page_token=token, **other))
        assert refusal.field == "page_token"
    foreign = await refusal_of(reporting.list(books.customer().key, model="gpt-4o", page_token=token))
    assert foreign.field == "page_token"


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({}, "abcde"),
        ({"provider": "azure"}, "b"),
        ({"model": "everything"}, "c"),
        ({"workflow": "chat"}, "a"),
        ({"project_id": "lab"}, "d"),
        ({"status": "ok"}, "abcd"),
        ({"status": "error"}, "e"),
        ({"status": "502"}, "e"),
        ({"status": "404"}, ""),
        ({"status": "ok", "provider": "openai"}, "acd"),
        ({"cached": "true"}, "d"),
        ({"cached": "false"}, "abce"),
        ({"cached": "false", "status": "ok"}, "abc"),
        ({"funding": "own_key"}, "b"),
        ({"funding": "credits"}, "acde"),
        ({"from": "2026-05-20T10:29:58Z"}, "abc"),
        ({"from": "2026-05-20", "to": "2026-05-20"}, "abcde"),
        ({"from": "2026-05-21"}, ""),
        ({"to": "2026-05-19"}, ""),
        ({"to": "2026-05-20T10:29:58Z"}, "de"),
        ({"from": "2026-05-20T10:29:56.5Z", "to": "2026-05-20T12:29:59+02:00"}, "cd"),
        ({"min_latency_ms": "821"}, "c"),
        ({"min_cost": "0.0045"}, "abc"),
        ({"min_cost": "0.0046"}, "c"),
        ({"metadata.team": "search"}, "a"),
        ({"metadata.team": "search", "metadata.tier": "1"}, ""),
    ],
    ids=str,
)
async def test_filters_narrow_a_list_and_its_total(
    books: Books, reporting: Reporting, filters: dict[str, str], shown: str
) -> None:
    acme = books.customer()
    books.project(acme.organization_id, "lab")
    calls = [
        acme.call(workflow="chat", metadata={"team": "search", "tier": "2"}),
        acme.own_key_call(at=NOW - SECOND, provider="azure"),
        acme.call(at=NOW - 2 * SECOND, model="everything", latency_ms=821),
        acme.call(at=NOW - 3 * SECOND, project_id="lab", cache_hit=True),
        acme.failed_call(at=NOW - 4 * SECOND),
    ]
    books.record(*calls)
    letters = {call.request_id: letter for call, letter in zip(calls, "abcde", strict=True)}

    page = await reporting.list(acme.key, **filters)

    assert "".join(letters[row.id] for row in page.requests) == shown
    assert page.total == len(shown)


async def test_single_calls_are_shown_to_the_second_that_the_plan_says(books: Books, reporting: Reporting) -> None:
    free = books.customer(retention_days=3)
    kept = free.call(at=NOW - timedelta(days=3))
    books.record(kept, free.call(at=NOW - timedelta(days=3) - SECOND))

    assert [row.id for row in (await reporting.list(free.key)).requests] == [kept.request_id]
    assert (await reporting.get(free.key, kept.request_id)).request.id == kept.request_id

    reporting.clock.time = NOW + SECOND
    assert (await reporting.list(free.key)).total == 0


async def test_a_call_that_was_sent_long_after_it_was_made_is_found_by_its_id(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    late = acme.call(request_id=acme.call().request_id, start_time=NOW - timedelta(days=20))
    late_receipt = NOW
    books.record(late, receipt_time=late_receipt)

    day = await reporting.one_day(acme.key, days="30", timezone="Asia/Kolkata", granularity="hourly")

    assert (await reporting.get(acme.key, late.request_id)).request.timestamp == "2026-04-30T10:30:00.000000Z"
    assert day.date == "2026-04-30T16:00:00+05:30"


async def test_a_call_is_shown_whole(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.discount(acme.organization_id, "0.20")
    call = acme.call(
        at=NOW.astimezone(UTC),
        usage=Usage(input_tokens=1_000, output_tokens=200, cached_input_tokens=600, web_searches=2),
        usage_source=USAGE_SOURCE_ESTIMATED,
        payload_retained=True,
        flags=[RECORD_FLAG_RECOVERED],
        attempts=[
            Attempt(
                provider="azure", upstream_model="dep-1", funding=FUNDING_OWN_KEY, error_type="timeout", latency_ms=500
            ),
            Attempt(
                provider="openai", upstream_model="gpt-4o-2024", funding=FUNDING_CREDITS, status=200, latency_ms=320
            ),
        ],
    )
    books.record(call)

    answer = await reporting.get(acme.key, call.request_id)

    assert [MessageToDict(attempt, always_print_fields_with_no_presence=True) for attempt in answer.attempts] == [
        {
            "order": 1,
            "provider": "azure",
            "model": "dep-1",
            "status": 0,
            "error": "timeout",
            "latencyMs": 500,
            "funding": "own_key",
        },
        {
            "order": 2,
            "provider": "openai",
            "model": "gpt-4o-2024",
            "status": 200,
            "error": "",
            "latencyMs": 320,
            "funding": "credits",
        },
    ]
    assert [
        (line.line, line.quantity, line.unit_price, line.discount, line.cost, line.list_cost, line.charged)
        for line in answer.cost_lines
    ] == [
        ("INPUT", "400", "0.0000025", "0.2", "0.0008", "0.001", True),
        ("CACHED_INPUT", "600", "0.00000125", "0.2", "0.0006", "0.00075", True),
        ("OUTPUT", "200", "0.00001", "0.2", "0.0016", "0.002", True),
        ("DATA_STORAGE", "1200", "0.00000001", "0", "0.000012", "0.000012", True),
    ]
    assert sum(Decimal(line.cost) for line in answer.cost_lines) == Decimal(answer.cost_exact)
    assert (answer.cost_exact, answer.charged_exact, answer.saved_exact) == ("0.003012", "0.003012", "0.00075")
    assert (answer.usage.input_tokens, answer.usage.cached_input_tokens, answer.usage.web_searches) == (1_000, 600, 2)
    assert (answer.usage_source, answer.discount, answer.price_version) == ("estimated", "0.2", "1")
    assert list(answer.flags) == ["recovered"]
    assert not answer.unpriced


async def test_own_key_calls_show_what_they_would_have_cost_and_charge_their_storage(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    call = acme.own_key_call(payload_retained=True)
    books.record(call)

    answer = await reporting.get(acme.key, call.request_id)

    assert answer.request.funding == "own_key"
    assert (answer.cost_exact, answer.charged_exact) == ("0.004512", "0.000012")
    assert [line.charged for line in answer.cost_lines] == [False, False, True]


async def test_an_unpriced_call_has_no_total(books: Books, reporting: Reporting, acme: Customer) -> None:
    call = acme.call(model="nobody-priced-it")
    books.record(call)

    answer = await reporting.get(acme.key, call.request_id)

    assert answer.unpriced
    assert (answer.cost_exact, answer.price_version) == ("", "")
    assert not answer.cost_lines
    assert answer.HasField("usage")


async def test_a_call_that_failed_shows_no_usage_and_costs_nothing(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    call = acme.failed_call(outcome=OUTCOME_CLIENT_ERROR, status=400, error_type="status")
    books.record(call)

    answer = await reporting.get(acme.key, call.request_id)

    assert not answer.HasField("usage")
    assert (answer.usage_source, answer.charged_exact) == ("", "0")
    assert answer.request.status == 400


async def test_some_calls_can_be_skipped_instead_of_leading_on_from_a_page(books: Books, reporting: Reporting) -> None:
    acme = books.customer()
    calls = [acme.call(at=NOW - number * SECOND) for number in range(4)]
    books.record(*calls)

    page = await reporting.list(acme.key, offset="1", limit="2")
    on = await reporting.list(acme.key, page_token=page.next_page_token)
    both = await refusal_of(reporting.list(acme.key, page_token=page.next_page_token, offset="1"))

    assert [row.id for row in page.requests] == [call.request_id for call in calls[1:3]]
    assert [row.id for row in on.requests] == [calls[3].request_id]
    assert page.total == on.total == 4
    assert both.field == "offset"
