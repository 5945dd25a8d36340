"""A client's retry is answered from the first result: recorded once, billed once."""

import asyncio

import pytest

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tests.integration.router.test_streams import read_events
from tollgate.ledger.v1 import usage_pb2

KEY = {"idempotency-key": "order-7"}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_retry_gets_the_first_answer_and_is_not_billed(
    router: Router, ledger: FakeLedger, streamed: bool
) -> None:
    key = ledger.grant()
    first = await router.chat(key, headers=KEY, stream=streamed)
    retry = await router.chat(key, headers=KEY, stream=streamed)
    await ledger.record((await router.chat(key)).request_id)

    assert (retry.status, retry.body, retry.request_id) == (first.status, first.body, first.request_id)
    assert ("idempotency-replayed" in first.headers, retry.headers["idempotency-replayed"]) == (False, "true")
    assert len(await ledger.records_of(key)) == 2


async def test_retries_while_the_first_runs_wait_for_it(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    prompt = "Hello simulate:delay_ms=300"
    answers = await asyncio.gather(*(router.chat(key, prompt, headers=KEY) for _ in range(5)))

    assert len({answer.request_id for answer in answers}) == 1
    assert {answer.status for answer in answers} == {200}


async def test_another_request_under_the_same_key_is_refused(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    await router.chat(key, headers=KEY)
    other = await router.chat(key, "Something else", headers=KEY)

    assert (other.status, other.json["error"]["code"]) == (422, "idempotency_key_reused")
    assert other.json["error"]["type"] == "invalid_request_error"
    assert (await ledger.record(other.request_id)).status == 422


async def test_a_call_that_failed_is_made_again(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    answers = [await router.chat(key, "Hello simulate:status=503", headers=KEY) for _ in range(2)]

    assert [answer.status for answer in answers] == [502, 502]
    assert answers[0].request_id != answers[1].request_id


async def test_who_lost_the_connection_in_mid_stream_gets_the_whole_stream_on_retry(
    router: Router, ledger: FakeLedger
) -> None:
    key = ledger.grant()
    # A provider that is cancelled when clients leave, unless they may come back.
    prompt = "Hello simulate:tokens=20 simulate:chunk_ms=50"
    async with router.open_chat(key, prompt, model="llama", headers=KEY) as response:
        await read_events(response, 3)
        request_id = response.headers["x-tollgate-request-id"]
    retry = await router.chat(key, prompt, headers=KEY, model="llama", stream=True)
    record = await ledger.record(request_id)

    assert retry.request_id == request_id
    assert b"word-20" in retry.body and retry.body.endswith(b"data: [DONE]\n\n")
    assert (record.outcome, record.usage.output_tokens) == (usage_pb2.OUTCOME_CLIENT_GONE, 20)
    assert len(await ledger.records_of(key)) == 1


async def test_a_key_that_is_too_long_is_refused(router: Router, ledger: FakeLedger) -> None:
    answer = await router.chat(ledger.grant(), headers={"idempotency-key": "k" * 256})

    assert (answer.status, "idempotency-key" in answer.json["message"]) == (400, True)
