"""Every parameter that is wrong is refused by name."""

import grpc
import pytest

from tests.contract.reporting.books import Books, Key
from tests.contract.reporting.reporting_server import Refusal, Reporting, refusal_of


@pytest.fixture
def key(books: Books) -> Key:
    return books.customer().key


def assert_names(refusal: Refusal, field: str) -> None:
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.field == field
    assert refusal.message.startswith(f"{field} ")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        *(({"days": days}, "days") for days in ["0", "366", "-1", "1.5", "1e1", "abc", " 7", "٧", "99999999999"]),
        ({"from_date": "2026-05-01"}, "to"),
        ({"to_date": "2026-05-01"}, "from"),
        *(
            ({"from_date": date, "to_date": "2026-05-01"}, "from")
            for date in ["yesterday", "2026-02-30", "20260501", "2026-5-1", "0001-01-01", "2026-05-01T00:00"]
        ),
        ({"from_date": "2026-05-01", "to_date": "9999-12-31"}, "to"),
        ({"from_date": "2026-05-02", "to_date": "2026-05-01"}, "to"),
        ({"from_date": "2024-01-01", "to_date": "2026-01-01"}, "to"),
        *(
            ({"timezone": zone}, "timezone")
            for zone in ["Mars/Olympus", "Europe", "../UTC", "/etc/passwd", "+01:00", "europe/zurich", "\0"]
        ),
        ({"group_by": "mood"}, "groupBy"),
        ({"group_by": "api_key"}, "groupBy"),
        ({"granularity": "weekly"}, "granularity"),
        ({"api_key_id": "tg_123"}, "apiKeyId"),
        ({"organization_id": "acme"}, "organization_id"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_of_activity_is_named(
    reporting: Reporting, key: Key, parameters: dict[str, str], field: str
) -> None:
    assert_names(await refusal_of(reporting.activity(key, **parameters)), field)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        *(({"limit": limit}, "limit") for limit in ["0", "501", "many", "-1"]),
        *(({"status": status}, "status") for status in ["fine", "99", "600", "2xx"]),
        *(({"page_token": token}, "page_token") for token in ["x", "AAAA", "é", "A" * 32]),
        ({"api_key_id": "7"}, "api_key_id"),
        ({"organization_id": "7"}, "organization_id"),
        ({"cached": "yes"}, "cached"),
        ({"funding": "free"}, "funding"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-02-30"}, "from"),
        ({"to": "2026-05-20T10:00:00"}, "to"),
        ({"from": "2026-05-20", "to": "2026-05-19"}, "to"),
        ({"min_latency_ms": "-1"}, "min_latency_ms"),
        ({"min_cost": "1e3"}, "min_cost"),
        ({"offset": "10001"}, "offset"),
        ({f"metadata.{number}": "x" for number in range(17)}, "metadata"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_of_requests_is_named(
    reporting: Reporting, key: Key, parameters: dict[str, str], field: str
) -> None:
    assert_names(await refusal_of(reporting.list(key, **parameters)), field)


@pytest.mark.parametrize("parameters", [{"days": "1"}, {"days": "365"}, {"timezone": "UTC"}, {"granularity": "hourly"}])
async def test_what_is_within_bounds_is_taken(reporting: Reporting, key: Key, parameters: dict[str, str]) -> None:
    assert await reporting.activity(key, **parameters) == []


@pytest.mark.parametrize("field", ["project_id", "provider", "model", "workflow"])
async def test_text_that_no_database_can_hold_is_refused(reporting: Reporting, key: Key, field: str) -> None:
    assert_names(await refusal_of(reporting.list(key, **{field: "a\0b"})), field)
    assert_names(await refusal_of(reporting.activity(key, project_id="a\0b")), "projectId")
