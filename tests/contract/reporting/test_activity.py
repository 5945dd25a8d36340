"""What `GetActivity` answers, worked out by hand."""

from datetime import timedelta
from itertools import pairwise

import pytest
from google.protobuf.json_format import MessageToDict

from services.common.money import pico_from_usd
from tests.contract.reporting.books import NOW, Books, Customer
from tests.contract.reporting.reporting_server import Reporting
from tollgate.ledger.v1.usage_pb2 import OUTCOME_CONTENT_REJECTED, Usage
from tollgate.reporting.v1.activity_service_pb2 import ActivityBreakdown, ActivityPeriod

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
USAGE_OF_EVERYTHING = Usage(
    input_tokens=1_000,
    cached_input_tokens=100,
    cache_write_tokens=200,
    input_audio_tokens=50,
    input_image_tokens=60,
    output_tokens=500,
    reasoning_tokens=40,
    output_image_tokens=30,
    output_audio_tokens=20,
    web_searches=3,
)


@pytest.fixture
def acme(books: Books) -> Customer:
    return books.customer()


def parts_of(day: ActivityPeriod) -> float:
    return (
        day.input_cost
        + day.output_cost
        + day.cached_input_cost
        + day.cache_write_input_cost
        + day.request_cost
        + day.web_search_cost
        + day.data_storage_cost
    )


async def test_every_field_of_a_day(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.discount(acme.organization_id, "0.20")
    cached = Usage(input_tokens=1_000, output_tokens=200, cached_input_tokens=600)
    books.record(
        acme.call(usage=cached),  # 0.0030, saves 0.00075
        acme.own_key_call(usage=cached, payload_retained=True),  # 0.0030 and 0.000012 of storage
        acme.call(cache_hit=True),
        acme.failed_call(),
        acme.refused_call(),
    )

    day = await reporting.one_day(acme.key, days="1")

    assert MessageToDict(day, preserving_proto_field_name=True, always_print_fields_with_no_presence=True) == {
        "date": "2026-05-20",
        "request_count": 5,
        "input_tokens": 3_000,
        "output_tokens": 600,
        "total_tokens": 3_600,
        "cached_tokens": 1_200,
        "cost": 0.006012,
        "input_cost": 0.0016,
        "output_cost": 0.0032,
        "cached_input_cost": 0.0012,
        "cache_write_input_cost": 0,
        "request_cost": 0,
        "web_search_cost": 0,
        "data_storage_cost": 0.000012,
        "image_input_cost": 0,
        "image_output_cost": 0,
        "audio_input_cost": 0,
        "audio_output_cost": 0,
        "error_count": 2,
        "error_rate": 40,
        "client_error_count": 1,
        "cache_count": 1,
        "cache_rate": 20,
        "discount_savings": 0.0015,
        "credits_request_count": 4,
        "api_keys_request_count": 1,
        "credits_cost": 0.003,
        "api_keys_cost": 0.003012,
        "credits_data_storage_cost": 0,
        "api_keys_data_storage_cost": 0.000012,
        "cost_exact": "0.006012",
        "charged_exact": "0.003012",
        "model_breakdown": [
            {
                "id": "gpt-4o",
                "provider": "openai",
                "request_count": 4,
                "error_count": 1,
                "cache_count": 1,
                "input_tokens": 3_000,
                "output_tokens": 600,
                "total_tokens": 3_600,
                "cached_tokens": 1_200,
                "cost": 0.006012,
                "credits_request_count": 3,
                "api_keys_request_count": 1,
                "credits_cost": 0.003,
                "api_keys_cost": 0.003012,
            },
            {
                "id": "",
                "provider": "",
                "request_count": 1,
                "error_count": 1,
                "cache_count": 0,
                "input_tokens": 0,
                "output_tokens": 0,
                "total_tokens": 0,
                "cached_tokens": 0,
                "cost": 0,
                "credits_request_count": 1,
                "api_keys_request_count": 0,
                "credits_cost": 0,
                "api_keys_cost": 0,
            },
        ],
        "api_key_breakdown": [],
        "provider_breakdown": [],
        "workflow_breakdown": [],
    }


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Kolkata"])
async def test_every_kind_of_charge_is_in_one_part_and_the_parts_are_the_cost(
    books: Books, reporting: Reporting, acme: Customer, timezone: str
) -> None:
    books.record(
        acme.call(model="everything", usage=USAGE_OF_EVERYTHING, payload_retained=True),
        acme.call(model="everything", usage=None, usage_source=0, outcome=OUTCOME_CONTENT_REJECTED),
    )

    day = await reporting.one_day(acme.key, from_date="2026-05-20", to_date="2026-05-20", timezone=timezone)

    assert day.image_input_cost == pytest.approx(60 * 0.003)
    assert day.audio_input_cost == pytest.approx(50 * 0.004)
    assert day.input_cost == pytest.approx(590 * 0.001 + day.image_input_cost + day.audio_input_cost)
    assert day.cached_input_cost == pytest.approx(100 * 0.0001)
    assert day.cache_write_input_cost == pytest.approx(200 * 0.002)
    assert day.image_output_cost == pytest.approx(30 * 0.03)
    assert day.audio_output_cost == pytest.approx(20 * 0.04)
    plain_output = 500 - 40 - 30 - 20
    assert day.output_cost == pytest.approx(
        plain_output * 0.01 + 40 * 0.02 + day.image_output_cost + day.audio_output_cost
    )
    assert day.web_search_cost == 0.75
    assert day.request_cost == 0.5 + 0.75
    assert day.data_storage_cost == 0.000015
    assert parts_of(day) == pytest.approx(day.cost, rel=1e-12)
    assert day.cost_exact == "9.980015"
    assert day.credits_cost + day.api_keys_cost == day.cost


async def test_an_unpriced_call_counts_and_its_storage_is_all_it_costs(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(acme.call(model="nobody-priced-it", payload_retained=True))

    for timezone in ("UTC", "Asia/Kolkata"):
        day = await reporting.one_day(acme.key, days="1", timezone=timezone)
        assert (day.request_count, day.cost_exact) == (1, "0.000012")


async def test_days_without_calls_are_left_out_after_days_and_zero_between_from_and_to(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(acme.call(at=NOW - 2 * DAY))

    by_days = await reporting.activity(acme.key)
    by_dates = await reporting.activity(acme.key, from_date="2026-05-17", to_date="2026-05-20")

    assert [day.date for day in by_days] == ["2026-05-18"]
    assert [(day.date, day.request_count) for day in by_dates] == [
        ("2026-05-17", 0),
        ("2026-05-18", 1),
        ("2026-05-19", 0),
        ("2026-05-20", 0),
    ]


async def test_the_last_seven_days_are_today_and_the_six_before(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(*(acme.call(at=NOW - number * DAY) for number in range(9)))

    days = await reporting.activity(acme.key)

    assert [day.date for day in days] == [f"2026-05-{number}" for number in range(14, 21)]


async def test_from_and_to_override_days(books: Books, reporting: Reporting, acme: Customer) -> None:
    days = await reporting.activity(acme.key, days="1", from_date="2026-05-01", to_date="2026-05-03")

    assert [day.date for day in days] == ["2026-05-01", "2026-05-02", "2026-05-03"]


@pytest.mark.parametrize(
    ("timezone", "midnight"),
    [
        ("UTC", "2026-05-19T00:00"),
        ("Europe/Zurich", "2026-05-18T22:00"),
        ("America/New_York", "2026-05-19T04:00"),
        ("Asia/Kolkata", "2026-05-18T18:30"),
        ("Asia/Kathmandu", "2026-05-18T18:15"),
        ("Pacific/Chatham", "2026-05-18T11:15"),
    ],
)
async def test_a_call_belongs_to_the_day_it_was_made_on_where_it_is_looked_at(
    books: Books, reporting: Reporting, acme: Customer, timezone: str, midnight: str
) -> None:
    new_day = NOW.fromisoformat(f"{midnight}:00+00:00")
    books.record(
        acme.call(at=new_day - timedelta(microseconds=1)),
        acme.own_key_call(at=new_day, workflow="nightly"),
        acme.call(at=new_day + HOUR),
    )

    days = await reporting.activity(acme.key, from_date="2026-05-18", to_date="2026-05-19", timezone=timezone)

    assert [(day.date, day.request_count, day.api_keys_request_count) for day in days] == [
        ("2026-05-18", 1, 0),
        ("2026-05-19", 2, 1),
    ]
    assert [day.cost_exact for day in days] == ["0.0045", "0.009"]


async def test_the_same_calls_add_up_to_the_same_in_every_zone(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    books.record(*(acme.call(at=NOW - number * timedelta(minutes=47), project_id="web") for number in range(60)))

    for timezone in ("UTC", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"):
        for granularity in ("daily", "hourly"):
            found = await reporting.activity(
                acme.key, days="5", timezone=timezone, granularity=granularity, group_by="apiKey"
            )

            assert sum(period.request_count for period in found) == 60
            assert sum(pico_from_usd(period.cost_exact) for period in found) == 60 * 4_500_000_000
            for earlier, later in pairwise(period.date for period in found):
                assert earlier < later


async def test_hours_are_those_of_the_clock_on_the_wall(books: Books, reporting: Reporting, acme: Customer) -> None:
    reporting.clock.time = NOW.fromisoformat("2026-03-29T12:00:00+00:00")
    books.record(acme.call(at=NOW.fromisoformat("2026-03-29T01:10:00+00:00")))

    shown = await reporting.activity(acme.key, days="1", timezone="Europe/Zurich", granularity="hourly")
    whole = await reporting.activity(
        acme.key, from_date="2026-03-29", to_date="2026-03-29", timezone="Europe/Zurich", granularity="hourly"
    )

    assert [hour.date for hour in shown] == ["2026-03-29T03:00:00+02:00"]
    assert len(whole) == 23


async def test_figures_reach_back_to_the_hour_that_the_plan_still_keeps(books: Books, reporting: Reporting) -> None:
    free = books.customer(retention_days=3)
    kept_hour = (NOW - 3 * DAY).replace(minute=0)
    books.record(
        free.call(at=kept_hour - SECOND),
        free.call(at=kept_hour),
    )

    for timezone in ("UTC", "Asia/Kolkata"):
        by_days = await reporting.activity(free.key, days="30", timezone=timezone)
        by_dates = await reporting.activity(free.key, from_date="2026-05-10", to_date="2026-05-20", timezone=timezone)

        assert [(day.date, day.request_count) for day in by_days] == [("2026-05-17", 1)]
        assert [day.date for day in by_dates] == ["2026-05-17", "2026-05-18", "2026-05-19", "2026-05-20"]


async def test_an_answer_says_how_fresh_it_is_and_how_far_the_plan_reaches(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    operator = books.key(None)

    own = await reporting.activity_headers(acme.key)
    over_all = await reporting.activity_headers(operator)
    of_one = await reporting.activity_headers(operator, organization_id=acme.organization_id)

    assert own["x-tollgate-as-of"] == "2026-05-20T10:30:00.000Z"
    assert own["x-tollgate-retention-days"] == of_one["x-tollgate-retention-days"] == "90"
    assert "x-tollgate-retention-days" not in over_all


def rows(breakdown: list[ActivityBreakdown]) -> list[tuple[str, str, float]]:
    return [(row.id, row.provider, row.request_count) for row in breakdown]


async def test_breakdowns_are_by_what_was_asked_for_and_the_dearest_comes_first(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    other = books.key(acme.organization_id)
    books.record(
        acme.call(workflow="chat"),
        acme.call(workflow="chat", provider="azure"),
        acme.call(api_key_id=other.api_key_id, workflow="batch", model="everything"),
        acme.failed_call(api_key_id=other.api_key_id),
        acme.failed_call(api_key_id=other.api_key_id),
    )

    by_model = await reporting.one_day(acme.key, days="1")
    by_key = await reporting.one_day(acme.key, days="1", group_by="apiKey")
    by_provider = await reporting.one_day(acme.key, days="1", group_by="provider")
    by_workflow = await reporting.one_day(acme.key, days="1", group_by="workflow")

    models = [("everything", "openai", 1), ("gpt-4o", "openai", 3), ("gpt-4o", "azure", 1)]
    assert rows(list(by_model.model_breakdown)) == models
    assert rows(list(by_key.model_breakdown)) == models
    assert rows(list(by_key.api_key_breakdown)) == [(other.api_key_id, "", 3), (acme.key.api_key_id, "", 2)]
    assert rows(list(by_provider.provider_breakdown)) == [("openai", "openai", 4), ("azure", "azure", 1)]
    assert rows(list(by_workflow.workflow_breakdown)) == [("batch", "", 1), ("chat", "", 2), ("", "", 2)]
    assert not by_model.api_key_breakdown
    assert not by_key.provider_breakdown


async def test_filters_narrow_to_a_project_or_a_key(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.project(acme.organization_id, "lab")
    other = books.key(acme.organization_id)
    books.record(
        acme.call(),
        acme.call(api_key_id=other.api_key_id),
        acme.call(api_key_id=other.api_key_id, project_id="lab"),
    )

    for timezone in ("UTC", "Asia/Kolkata"):
        web = await reporting.one_day(acme.key, days="1", project_id="web", timezone=timezone)
        by_other = await reporting.one_day(acme.key, days="1", api_key_id=other.api_key_id.upper(), timezone=timezone)
        neither = await reporting.activity(
            acme.key, days="1", project_id="lab", api_key_id=acme.key.api_key_id, timezone=timezone
        )

        assert (web.request_count, by_other.request_count, neither) == (2, 2, [])
