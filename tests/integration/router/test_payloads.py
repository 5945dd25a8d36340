"""What is retained of a call, and that nothing is where nothing should be: not in records, spool or logs."""

import zlib
from pathlib import Path

import grpc
from google.api.httpbody_pb2 import HttpBody

from tests.integration.router.conftest import StartRouter
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router, chat_body
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings
from tollgate.ledger.v1.usage_pb2 import OUTCOME_CLIENT_GONE, RECORD_FLAG_PAYLOAD_TRUNCATED, UsageRecord
from tollgate.router.v1.inference_service_pb2 import CreateChatCompletionRequest
from tollgate.router.v1.inference_service_pb2_grpc import InferenceServiceStub

SECRET = "the-secret-of-this-call"


def asked(record: UsageRecord) -> bytes:
    return zlib.decompress(record.payload.request_body)


def answered(record: UsageRecord) -> bytes:
    return zlib.decompress(record.payload.response_body)


async def test_bodies_are_kept_byte_for_byte_where_they_are_retained(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(payload_retained=True), "Grüezi")
    record = await ledger.record(answer.request_id)

    assert record.payload_retained
    assert asked(record) == chat_body("Grüezi")
    assert answered(record) == answer.body
    assert record.payload.request_content_type.startswith("application/json")
    assert record.payload.response_content_type.startswith("application/json")
    assert not record.flags


async def test_of_a_stream_all_events_are_kept_as_they_were_sent(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(payload_retained=True), "Hello simulate:tokens=30", stream=True)
    record = await ledger.record(answer.request_id)

    assert answered(record) == answer.body
    assert record.payload.response_content_type.startswith("text/event-stream")


async def test_where_nothing_is_retained_no_body_is_in_record_spool_or_log(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path) as router:
        for streamed in (False, True):
            answer = await router.chat(ledger.grant(), SECRET, stream=streamed)
            record = await ledger.record(answer.request_id)

            assert not record.HasField("payload")
            assert not record.payload_retained

    written = files_under(tmp_path)
    assert answer.request_id.encode() in written
    assert SECRET.encode() not in written


async def test_a_retained_body_is_in_the_spool_compressed_and_never_in_the_log(
    start_router: StartRouter, ledger: FakeLedger, tmp_path: Path
) -> None:
    async with start_router(tmp_path, TOLLGATE_LOG_LEVEL="DEBUG") as router:
        answer = await router.chat(ledger.grant(payload_retained=True), SECRET)
        record = await ledger.record(answer.request_id)

    written = files_under(tmp_path)
    assert answer.request_id.encode() in written
    assert record.payload.request_body in written
    assert SECRET.encode() not in written


def files_under(directory: Path) -> bytes:
    """All that a router has written."""
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


async def test_a_call_that_is_refused_leaves_no_payload(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(payload_retained=True), SECRET, model="nobody-offers-this")

    assert answer.status == 404
    assert not (await ledger.record(answer.request_id)).HasField("payload")


async def test_what_a_provider_refused_is_kept_with_its_words(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(payload_retained=True), "Hello simulate:status=400")
    record = await ledger.record(answer.request_id)

    assert answered(record) == answer.body
    assert asked(record) == chat_body("Hello simulate:status=400")


async def test_a_client_that_leaves_has_kept_what_it_was_sent(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(payload_retained=True)
    prompt = "Hello simulate:tokens=50 simulate:chunk_ms=50"
    async with router.open_chat(key, prompt) as response:
        received = await response.body_reader.read_chunk()
    assert received is not None
    (record,) = await ledger.records_of(key)

    assert record.outcome == OUTCOME_CLIENT_GONE
    assert answered(record).startswith(bytes(received))
    assert b"[DONE]" not in answered(record)


async def test_an_answer_from_the_cache_is_kept_like_the_first(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(payload_retained=True, project_settings=ProjectSettings(cache_seconds=60))
    for streamed in (False, True):
        answers = [await router.chat(key, "Hello again", stream=streamed) for _ in range(2)]
        first, second = [await ledger.record(answer.request_id) for answer in answers]

        assert (first.cache_hit, second.cache_hit) == (False, True)
        assert asked(second) == asked(first)
        assert answered(second) == answered(first)


async def test_a_body_beyond_its_bound_is_kept_in_part_and_flagged(router: Router, ledger: FakeLedger) -> None:
    prompt = "word " * 300_000
    answer = await router.chat(ledger.grant(payload_retained=True), prompt)
    record = await ledger.record(answer.request_id)

    assert answer.status == 200
    assert chat_body(prompt).startswith(asked(record))
    assert (record.payload.request_truncated, record.payload.response_truncated) == (True, False)
    assert list(record.flags) == [RECORD_FLAG_PAYLOAD_TRUNCATED]


async def test_a_call_over_grpc_is_kept_like_any_other(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant(payload_retained=True)
    async with grpc.aio.insecure_channel(router.grpc_address) as channel:
        request = CreateChatCompletionRequest(body=HttpBody(content_type="application/json", data=chat_body("Hello")))
        response = await InferenceServiceStub(channel).CreateChatCompletion(
            request, metadata=(("authorization", f"Bearer {key}"),), timeout=10
        )
    (record,) = await ledger.records_of(key)

    assert asked(record) == chat_body("Hello")
    assert answered(record) == response.body.data
    assert record.payload.request_content_type == "application/json"
