"""A streamed call: every byte as it came, the record durable before the end, whatever goes wrong in between."""

import asyncio
import time
from contextlib import suppress

import orjson
from pyreqwest.response import Response

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Answer, Router
from tollgate.ledger.v1 import usage_pb2

DONE = b"data: [DONE]\n\n"


def events(answer: Answer) -> list[dict[str, object]]:
    """The events of a stream but for its end marker."""
    datas = [event.removeprefix(b"data: ") for event in answer.body.split(b"\n\n") if event]
    return [orjson.loads(data) for data in datas if data != b"[DONE]"]


async def read_events(response: Response, count: int) -> bytes:
    received = b""
    while received.count(b"\n\n") < count:
        chunk = await response.body_reader.read_chunk()
        assert chunk is not None
        received += bytes(chunk)
    return received


async def test_a_stream_ends_as_the_format_ends_it_and_is_recorded(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "one two simulate:tokens=20 simulate:cached=1", stream=True)
    record = await ledger.record(answer.request_id)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.endswith(DONE)
    assert (record.streamed, record.outcome, record.status) == (True, usage_pb2.OUTCOME_SUCCESS, 200)
    assert (record.usage.input_tokens, record.usage.cached_input_tokens, record.usage.output_tokens) == (4, 1, 20)
    assert record.usage_source == usage_pb2.USAGE_SOURCE_REPORTED
    assert 0 <= record.time_to_first_token_ms <= record.latency_ms


async def test_a_client_that_did_not_ask_for_usage_sees_none(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello", stream=True)

    assert all(event["choices"] and event.get("usage") is None for event in events(answer))


async def test_a_client_that_asked_for_usage_sees_it(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello", stream=True, stream_options={"include_usage": True})

    last = events(answer)[-1]
    assert last["choices"] == []
    assert isinstance(last["usage"], dict) and last["usage"]["completion_tokens"] == 8


async def test_pieces_arrive_as_they_are_made_and_not_all_at_the_end(router: Router, ledger: FakeLedger) -> None:
    start = time.monotonic()
    async with router.open_chat(ledger.grant(), "Hello simulate:tokens=20 simulate:chunk_ms=100") as response:
        await read_events(response, 2)
        first_seconds = time.monotonic() - start
        while await response.body_reader.read_chunk() is not None:
            pass

    assert first_seconds < 1 < time.monotonic() - start


async def test_a_stream_without_usage_is_estimated_from_what_was_streamed(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:usage=no simulate:text=emoji", stream=True)
    record = await ledger.record(answer.request_id)

    assert record.usage_source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert record.usage.output_tokens >= 8


async def test_a_provider_that_breaks_off_is_not_paid_and_the_client_can_tell(
    router: Router, ledger: FakeLedger
) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:break_after=3", stream=True)
    record = await ledger.record(answer.request_id)

    assert DONE not in answer.body
    assert events(answer)[-1]["error"] == {
        "message": "openai broke off in mid-answer.",
        "type": "provider_error",
        "code": "provider_failed",
    }
    assert (record.outcome, record.error_type) == (usage_pb2.OUTCOME_PROVIDER_ERROR, "broken_stream")
    assert record.usage_source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert record.usage.output_tokens > 0


async def test_a_stream_that_ends_without_an_end_is_a_provider_s_failure(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:end_after=3", stream=True)

    assert "error" in events(answer)[-1]
    assert (await ledger.record(answer.request_id)).outcome == usage_pb2.OUTCOME_PROVIDER_ERROR


async def test_an_error_in_mid_stream_is_passed_on_as_the_provider_worded_it(
    router: Router, ledger: FakeLedger
) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:error_after=3 simulate:chunk_ms=20", stream=True)

    failures = [event["error"] for event in events(answer) if "error" in event]
    assert [failure["message"] for failure in failures if isinstance(failure, dict)] == ["failing, as asked"]
    assert (await ledger.record(answer.request_id)).outcome == usage_pb2.OUTCOME_PROVIDER_ERROR


async def test_a_provider_that_falls_silent_is_a_timeout(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), "Hello simulate:chunk_ms=5000", model="llama", stream=True)
    record = await ledger.record(answer.request_id)

    assert (record.outcome, record.attempts[-1].error_type) == (usage_pb2.OUTCOME_TIMEOUT, "timeout")


async def test_when_the_client_leaves_the_usage_is_read_to_the_end(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with router.open_chat(key, "Hello simulate:tokens=20 simulate:chunk_ms=50") as response:
        await read_events(response, 3)
        request_id = response.headers["x-tollgate-request-id"]
    record = await ledger.record(request_id)

    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE
    assert (record.usage_source, record.usage.output_tokens) == (usage_pb2.USAGE_SOURCE_REPORTED, 20)


async def test_when_the_client_leaves_a_provider_may_be_cancelled_and_its_answer_estimated(
    router: Router, ledger: FakeLedger
) -> None:
    async with router.open_chat(
        ledger.grant(), "Hello simulate:tokens=1000 simulate:chunk_ms=50", model="llama"
    ) as response:
        await read_events(response, 3)
        request_id = response.headers["x-tollgate-request-id"]
    record = await ledger.record(request_id)

    assert record.outcome == usage_pb2.OUTCOME_CLIENT_GONE
    assert record.usage_source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert 0 < record.usage.output_tokens < 200
    assert record.latency_ms < 5_000


async def test_a_client_that_leaves_before_the_first_piece_is_recorded_all_the_same(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await router.chat(key, "Hello simulate:delay_ms=700", stream=True)

    (record,) = await ledger.records_of(key)
    assert record.outcome in (usage_pb2.OUTCOME_CLIENT_GONE, usage_pb2.OUTCOME_SUCCESS)
    assert (record.usage_source, record.usage.output_tokens) == (usage_pb2.USAGE_SOURCE_REPORTED, 8)


async def test_a_thousand_slow_streams_are_all_complete_and_recorded_once(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    prompt = "Hello simulate:tokens=200 simulate:chunk_ms=50"
    answers = await asyncio.gather(*(router.chat(key, prompt, stream=True) for _ in range(1_000)))
    for answer in answers:
        await ledger.record(answer.request_id)
    records = await ledger.records_of(key)

    assert all(answer.body.endswith(DONE) for answer in answers)
    assert len({record.request_id for record in records}) == len(records) == len(answers)
    assert {record.usage.output_tokens for record in records} == {200}
    assert {record.usage_source for record in records} == {usage_pb2.USAGE_SOURCE_REPORTED}
