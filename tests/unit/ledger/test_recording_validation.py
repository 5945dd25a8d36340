from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.errors import DomainError
from services.ledger.usage.convert_usage import AGE_MAX, AHEAD_MAX, delivery_from_proto, received_from_proto
from services.ledger.usage.records import RecordFlag
from tests.usage_builders import a_record, a_request, uuid7_at
from tollgate.ledger.v1.usage_pb2 import FUNDING_CREDITS, Attempt, OutputImages, Usage, UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORGANIZATION = "0199a000-0000-7000-8000-00000000000a"
PRODUCER = "0199a000-0000-4000-8000-00000000000b"


def record(**fields: object) -> UsageRecord:
    values: dict[str, Any] = {"organization_id": ORGANIZATION, **fields}
    return a_record(at=NOW, **values)


def problem_of(message: UsageRecord) -> str:
    received = received_from_proto(message, NOW)
    assert (received.record is None) == bool(received.problem)
    return received.problem


def test_an_ordinary_record_has_no_problem() -> None:
    assert problem_of(record()) == ""


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"request_id": ""}, "request_id must be a UUID of version 7 in lower case"),
        ({"request_id": PRODUCER}, "request_id must be a UUID of version 7 in lower case"),
        (
            {"request_id": "0199A000-0000-7000-8000-00000000000A"},
            "request_id must be a UUID of version 7 in lower case",
        ),
        ({"organization_id": "acme"}, "organization_id must be a UUID in lower case"),
        ({"api_key_id": ""}, "api_key_id must be a UUID in lower case"),
        ({"project_id": ""}, "project_id must be 1 to 64 letters, digits or ._:-"),
        ({"project_id": "a b"}, "project_id must be 1 to 64 letters, digits or ._:-"),
        ({"project_id": "x" * 65}, "project_id must be 1 to 64 letters, digits or ._:-"),
        ({"endpoint": 0}, "endpoint has no value 0"),
        ({"endpoint": 99}, "endpoint has no value 99"),
        ({"outcome": 0}, "outcome has no value 0"),
        ({"funding": 3}, "funding has no value 3"),
        ({"flags": [7]}, "flags has no value 7"),
        ({"usage_source": 9}, "usage_source has no value 9"),
        ({"usage_source": 0}, "usage_source must be given with usage, and only then"),
        ({"usage": None}, "usage_source must be given with usage, and only then"),
        ({"start_time": None}, "start_time is missing"),
        ({"start_time": Timestamp(seconds=10**15)}, "start_time is more than a day in the future"),
        ({"latency_ms": -1}, "latency_ms must be from 0 to 2147483647, got -1"),
        ({"time_to_first_token_ms": -1}, "time_to_first_token_ms must be from 0 to 2147483647, got -1"),
        ({"status": 1_000}, "status must be from 0 to 999, got 1000"),
        ({"requested_model": "x" * 257}, "requested_model may have at most 256 characters"),
        ({"model": "a\0b"}, "model contains a NUL character"),
        ({"provider": "x" * 65}, "provider may have at most 64 characters"),
        ({"error_type": "x" * 65}, "error_type may have at most 64 characters"),
        ({"service_tier": "x" * 65}, "service_tier may have at most 64 characters"),
        ({"workflow": "x" * 65}, "workflow may have at most 64 characters"),
        ({"metadata": {"k": "x" * 257}}, "metadata.k may have at most 256 characters"),
        ({"metadata": {"x" * 65: ""}}, "metadata may have at most 64 characters"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata may have at most 16 entries"),
        ({"metadata": {"k": "a\0b"}}, "metadata.k contains a NUL character"),
        ({"attempts": [Attempt(funding=FUNDING_CREDITS)] * 33}, "attempts may have at most 32 entries"),
        ({"attempts": [Attempt()]}, "attempts.funding has no value 0"),
        (
            {"attempts": [Attempt(funding=FUNDING_CREDITS, latency_ms=-1)]},
            "attempts.latency_ms must be from 0 to 2147483647, got -1",
        ),
        (
            {"usage": Usage(web_searches=10**12 + 1)},
            "usage.web_searches must be from 0 to 1000000000000, got 1000000000001",
        ),
        (
            {"usage": Usage(cached_input_image_tokens=-1)},
            "usage.cached_input_image_tokens must be from 0 to 1000000000000, got -1",
        ),
        (
            {"usage": Usage(output_images=[OutputImages(size="x")])},
            "usage.output_images.count must be from 1 to 1000000000000",
        ),
        (
            {"usage": Usage(output_images=[OutputImages(count=1)] * 33)},
            "usage.output_images may have at most 32 entries",
        ),
    ],
)
def test_what_cannot_be_recorded_says_which_field_is_wrong_and_how(fields: dict[str, object], problem: str) -> None:
    assert problem_of(record(**fields)) == problem


@pytest.mark.parametrize("name", ["request_id", "start_time"])
@pytest.mark.parametrize(
    ("age", "problem"),
    [
        (-AHEAD_MAX, ""),
        (-AHEAD_MAX - timedelta(seconds=1), "is more than a day in the future"),
        (AGE_MAX, ""),
        (AGE_MAX + timedelta(seconds=1), "is more than 35 days in the past"),
    ],
)
def test_a_record_is_at_most_35_days_old_and_a_day_ahead(name: str, age: timedelta, problem: str) -> None:
    value = uuid7_at(NOW - age) if name == "request_id" else NOW - age

    assert problem_of(record(**{name: value})) == (problem and f"{name} {problem}")


@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(timedelta(milliseconds=1), id="a moment"),
        pytest.param(timedelta(minutes=5), id="the five minutes that clocks may differ"),
        pytest.param(timedelta(minutes=10), id="a router's clock is wrong"),
        pytest.param(AHEAD_MAX, id="the most there is"),
    ],
)
def test_a_record_from_the_future_up_to_a_day_is_taken_at_receipt_time_and_flagged(ahead: timedelta) -> None:
    received = received_from_proto(a_record(ORGANIZATION, at=NOW + ahead), NOW)

    assert received.record is not None
    assert received.record.start_time == NOW
    assert received.record.flags == (RecordFlag.TIME_IN_FUTURE,)


def test_a_part_larger_than_its_whole_is_clamped_and_flagged() -> None:
    received = received_from_proto(record(usage=Usage(input_tokens=10, cached_input_tokens=20)), NOW)

    assert received.record is not None
    assert received.record.usage is not None
    assert received.record.usage.cached_input_tokens == 10
    assert received.record.flags == (RecordFlag.USAGE_CLAMPED,)


def test_a_refused_call_may_have_named_no_project() -> None:
    assert problem_of(record(project_id="", outcome=8)) == ""


def test_content_is_the_same_whatever_sequence_the_record_has() -> None:
    first, second = record(), UsageRecord()
    second.CopyFrom(first)
    second.sequence = 7

    assert received_from_proto(first, NOW).content_hash == received_from_proto(second, NOW).content_hash


def test_content_differs_with_any_other_field() -> None:
    first, second = record(), UsageRecord()
    second.CopyFrom(first)
    second.streamed = True

    assert received_from_proto(first, NOW).content_hash != received_from_proto(second, NOW).content_hash


def numbered(*sequences: int) -> RecordUsageRequest:
    request = a_request(*(record() for _ in sequences), producer_id=PRODUCER)
    for message, sequence in zip(request.records, sequences, strict=True):
        message.sequence = sequence
    return request


def without_producer(*, sequence: int = 0, epoch: int = 0) -> RecordUsageRequest:
    return RecordUsageRequest(records=[record(sequence=sequence)], epoch=epoch)


@pytest.mark.parametrize(
    ("request_of", "reason", "metadata"),
    [
        (RecordUsageRequest, "INVALID_REQUEST", {"field": "records"}),
        (lambda: a_request(*[record()] * 1_001), "TOO_LARGE", {"field": "records", "maximum": "1000"}),
        (lambda: without_producer(sequence=1), "INVALID_REQUEST", {"field": "producer_id"}),
        (lambda: without_producer(epoch=1), "INVALID_REQUEST", {"field": "producer_id"}),
        (lambda: a_request(record(), producer_id="me"), "INVALID_REQUEST", {"field": "producer_id"}),
        (lambda: a_request(record(), producer_id=PRODUCER, epoch=0), "INVALID_REQUEST", {"field": "epoch"}),
        (lambda: numbered(0), "INVALID_REQUEST", {"field": "records[0].sequence"}),
        (lambda: numbered(4, 4), "INVALID_REQUEST", {"field": "records[1].sequence"}),
        (lambda: numbered(4, 5, 7), "SEQUENCE_GAP", {"committed_sequence": "5", "sequence": "7"}),
    ],
    ids=[
        "nothing",
        "too many",
        "sequence without producer",
        "epoch without producer",
        "producer that is no UUID",
        "no epoch",
        "sequence 0",
        "repeated sequence",
        "skipped sequence",
    ],
)
def test_a_delivery_that_makes_no_sense_is_refused_as_a_whole(
    request_of: Callable[[], RecordUsageRequest], reason: str, metadata: dict[str, str]
) -> None:
    with pytest.raises(DomainError) as refused:
        delivery_from_proto(request_of(), NOW)

    assert (refused.value.reason, refused.value.metadata) == (reason, metadata)
