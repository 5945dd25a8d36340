"""The official Anthropic SDK, unmodified, sync and async: messages as Anthropic answers them, its errors for ours."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any, TypeVar

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from development.simulator.images_format import PIXEL
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord

MODEL = "claude-sonnet"
WORDS = "word-1 word-2 word-3 word-4 word-5 word-6 word-7 word-8"
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CACHED = "simulate:prompt=100 simulate:cached=30 simulate:cache_write=20 simulate:cache_write_1h=5 simulate:searches=2"
_Result = TypeVar("_Result")


def messages(prompt: str) -> list[MessageParam]:
    return [{"role": "user", "content": prompt}]


def sdk(router: Router, key: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=router.url, api_key=key, max_retries=0)


async def in_thread(router: Router, key: str, use: Callable[[anthropic.Anthropic], _Result]) -> _Result:
    """Uses the sync client where it does not hold up the ledger of the tests."""

    def run() -> _Result:
        with anthropic.Anthropic(base_url=router.url, api_key=key, max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def only_record(ledger: FakeLedger, key: str) -> UsageRecord:
    (record,) = await ledger.records_of(key)
    return record


def assert_used(record: UsageRecord) -> None:
    """What `CACHED` comes to: the cache is inside the input, where Anthropic counts it beside."""
    usage = record.usage
    assert (record.endpoint, record.outcome) == (usage_pb2.ENDPOINT_MESSAGES, usage_pb2.OUTCOME_SUCCESS)
    assert (usage.input_tokens, usage.output_tokens) == (100, 8)
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (30, 20, 5)
    assert (usage.web_searches, usage.reasoning_tokens) == (2, 3)
    assert (record.usage_source, list(record.flags)) == (usage_pb2.USAGE_SOURCE_REPORTED, [])


async def test_a_message_is_answered_and_its_usage_is_exact(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        answer = await client.messages.create(
            model=MODEL, max_tokens=100, messages=messages(f"Hi {CACHED} simulate:reasoning=3"), system="Be brief."
        )

    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert (answer.stop_reason, answer.model) == ("end_turn", "claude-sonnet-latest")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (50, 30)
    assert_used(await only_record(ledger, key))


async def test_a_streamed_message_is_put_together_and_its_usage_is_exact(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with (
        sdk(router, key) as client,
        client.messages.stream(
            model=MODEL, max_tokens=100, messages=messages(f"Hi {CACHED} simulate:reasoning=3")
        ) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()

    assert "".join(texts) == WORDS
    assert final.usage.output_tokens == 8
    record = await only_record(ledger, key)
    assert record.streamed
    assert_used(record)


async def test_the_sync_client_works_as_well(router: Router, ledger: FakeLedger) -> None:
    whole = await in_thread(
        router,
        ledger.grant(),
        lambda client: client.messages.create(model=MODEL, max_tokens=100, messages=messages("Hi")),
    )
    events = await in_thread(
        router,
        ledger.grant(),
        lambda client: list(client.messages.create(model=MODEL, max_tokens=100, messages=messages("Hi"), stream=True)),
    )

    assert whole.content[0].type == "text" and whole.content[0].text == WORDS
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


async def test_a_tool_is_called_and_its_result_is_taken(router: Router, ledger: FakeLedger) -> None:
    said = messages("How is the weather? simulate:tool=weather")
    async with sdk(router, ledger.grant()) as client:
        asked = await client.messages.create(model=MODEL, max_tokens=100, messages=said, tools=[WEATHER])
        call = asked.content[-1]
        assert call.type == "tool_use"
        said.append(
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}],
            }
        )
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
        said.append({"role": "user", "content": [result]})
        async with client.messages.stream(model=MODEL, max_tokens=100, messages=said, tools=[WEATHER]) as stream:
            answer = await stream.get_final_text()

    assert (asked.stop_reason, call.name, call.input) == ("tool_use", "weather", {"city": "Ulm"})
    assert answer == WORDS


async def test_a_streamed_tool_call_fits_together(router: Router, ledger: FakeLedger) -> None:
    prompt = messages("How is the weather? simulate:tool=weather simulate:reasoning=2")
    async with (
        sdk(router, ledger.grant()) as client,
        client.messages.stream(model=MODEL, max_tokens=100, messages=prompt, tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_message()

    assert [block.type for block in final.content] == ["thinking", "tool_use"]
    assert final.content[1].type == "tool_use" and final.content[1].input == {"city": "Ulm"}


async def test_an_image_can_be_shown(router: Router, ledger: FakeLedger) -> None:
    said: list[MessageParam] = [
        {
            "role": "user",
            "content": [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()},
                },
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    async with sdk(router, ledger.grant()) as client:
        answer = await client.messages.create(model=MODEL, max_tokens=100, messages=said)

    assert answer.content[0].type == "text" and answer.content[0].text == WORDS


@pytest.mark.parametrize(
    ("grant", "prompt", "error"),
    [
        pytest.param({}, "Hello simulate:status=400", anthropic.BadRequestError, id="refused by the provider"),
        pytest.param({}, "Hello simulate:status=503", anthropic.InternalServerError, id="every provider failed"),
        pytest.param({"read_only": True}, "Hello", anthropic.PermissionDeniedError, id="read-only key"),
        pytest.param({"credit_available": False}, "Hello", anthropic.APIStatusError, id="no credit"),
    ],
)
async def test_our_errors_are_its_errors(
    router: Router, ledger: FakeLedger, grant: dict[str, Any], prompt: str, error: type[anthropic.APIStatusError]
) -> None:
    async with sdk(router, ledger.grant(**grant)) as client:
        with pytest.raises(error) as raised:
            await client.messages.create(model=MODEL, max_tokens=100, messages=messages(prompt))

    assert raised.value.response.headers["x-tollgate-request-id"]
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["type"] == "error"


async def test_a_key_or_a_model_that_is_not_there_is_told_as_anthropic_tells_it(
    router: Router, ledger: FakeLedger
) -> None:
    async with sdk(router, "tg_unknown") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model=MODEL, max_tokens=100, messages=messages("Hi"))
    async with sdk(router, ledger.grant()) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="claude-nothing", max_tokens=100, messages=messages("Hi"))
        with pytest.raises(anthropic.BadRequestError, match="not offered on /v1/messages"):
            await client.messages.create(model="gpt-4o", max_tokens=100, messages=messages("Hi"))


@pytest.mark.parametrize("trouble", ["break_after=3", "end_after=3"])
async def test_a_stream_that_breaks_off_raises_where_it_breaks(
    router: Router, ledger: FakeLedger, trouble: str
) -> None:
    texts: list[str] = []
    async with sdk(router, ledger.grant()) as client:
        with pytest.raises(anthropic.APIError, match="broke off"):
            async with client.messages.stream(
                model=MODEL, max_tokens=100, messages=messages(f"Hello simulate:{trouble} simulate:chunk_ms=20")
            ) as stream:
                async for text in stream.text_stream:
                    texts.append(text)

    assert texts == ["word-1", " word-2", " word-3"]


async def test_an_error_in_mid_stream_comes_in_the_provider_s_words(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        with pytest.raises(anthropic.APIError, match="failing, as asked"):
            async with client.messages.stream(
                model=MODEL, max_tokens=100, messages=messages("Hello simulate:error_after=3 simulate:chunk_ms=20")
            ) as stream:
                await stream.get_final_message()

    record = await only_record(ledger, key)
    assert record.outcome == usage_pb2.OUTCOME_PROVIDER_ERROR
    assert (record.usage.input_tokens, record.usage_source) == (3, usage_pb2.USAGE_SOURCE_ESTIMATED)
