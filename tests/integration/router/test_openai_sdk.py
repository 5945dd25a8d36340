"""The official OpenAI SDK, unmodified, sync and async: every endpoint, whoever answers, and its own errors for ours."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any, TypeVar

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from development.simulator.images_format import PIXEL
from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import usage_pb2
from tollgate.ledger.v1.usage_pb2 import UsageRecord

WORDS = "word-1 word-2 word-3 word-4 word-5 word-6 word-7 word-8"
PIXEL_URL = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
WEATHER_OF_RESPONSES: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
_Result = TypeVar("_Result")

# One model per format that answers chat completions.
everybody = pytest.mark.parametrize("model", ["gpt-4o", "gpt-azure", "claude-sonnet", "gemini-flash"])


def messages(prompt: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": prompt}]


def sdk(router: Router, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0)


async def in_thread(router: Router, key: str, use: Callable[[openai.OpenAI], _Result]) -> _Result:
    """Uses the sync client where it does not hold up the ledger of the tests."""

    def run() -> _Result:
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def only_record(ledger: FakeLedger, key: str) -> UsageRecord:
    (record,) = await ledger.records_of(key)
    return record


def images_of(record: UsageRecord) -> list[tuple[str, str, int]]:
    return [(images.size, images.quality, images.count) for images in record.usage.output_images]


@everybody
async def test_a_chat_completion_is_answered_whoever_answers(router: Router, ledger: FakeLedger, model: str) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        answer = await client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello there simulate:cached=2"},
            ],
            temperature=0.5,
            max_completion_tokens=100,
            stop=["END"],
        )
    record = await only_record(ledger, key)

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (WORDS, "stop")
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 8)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert (record.usage.input_tokens, record.usage.cached_input_tokens, record.usage.output_tokens) == (5, 2, 8)
    assert (record.usage_source, list(record.flags)) == (usage_pb2.USAGE_SOURCE_REPORTED, [])
    assert record.endpoint == usage_pb2.ENDPOINT_CHAT_COMPLETIONS


@everybody
async def test_a_streamed_chat_completion_is_answered_whoever_answers(
    router: Router, ledger: FakeLedger, model: str
) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        stream = await client.chat.completions.create(
            model=model, messages=messages("Hello"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == WORDS
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 8
    assert (await only_record(ledger, key)).usage.output_tokens == 8


@everybody
async def test_the_sync_client_works_as_well(router: Router, ledger: FakeLedger, model: str) -> None:
    key = ledger.grant()
    whole = await in_thread(
        router, key, lambda client: client.chat.completions.create(model=model, messages=messages("Hello"))
    )
    chunks = await in_thread(
        router,
        key,
        lambda client: list(client.chat.completions.create(model=model, messages=messages("Hello"), stream=True)),
    )

    assert whole.choices[0].message.content == WORDS
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == WORDS
    assert all(chunk.usage is None for chunk in chunks)


@everybody
async def test_a_tool_is_called_and_its_result_is_taken(router: Router, ledger: FakeLedger, model: str) -> None:
    said = messages("How is the weather? simulate:tool=weather")
    async with sdk(router, ledger.grant()) as client:
        asked = await client.chat.completions.create(
            model=model, messages=said, tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False
        )
        message = asked.choices[0].message
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        said.append(message.model_dump(exclude_none=True))  # type: ignore[arg-type] # as their documentation does
        said.append({"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 21}'})
        answer = await client.chat.completions.create(model=model, messages=said, tools=[WEATHER])

    assert asked.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Ulm"}')
    assert answer.choices[0].message.content == WORDS


@everybody
async def test_a_tool_call_streams_in_pieces_that_fit_together(router: Router, ledger: FakeLedger, model: str) -> None:
    async with (
        sdk(router, ledger.grant()) as client,
        client.chat.completions.stream(
            model=model, messages=messages("How is it? simulate:tool=weather"), tools=[WEATHER]
        ) as stream,
    ):
        final = await stream.get_final_completion()

    message = final.choices[0].message
    assert message.tool_calls is not None
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("weather", '{"city":"Ulm"}')
    ]
    assert final.choices[0].finish_reason == "tool_calls"


@everybody
async def test_an_image_can_be_shown(router: Router, ledger: FakeLedger, model: str) -> None:
    said: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": PIXEL_URL}},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            ],
        }
    ]
    async with sdk(router, ledger.grant()) as client:
        answer = await client.chat.completions.create(model=model, messages=said)

    assert answer.choices[0].message.content == WORDS


class City(BaseModel):
    name: str


@everybody
async def test_an_answer_can_be_asked_for_in_a_schema(router: Router, ledger: FakeLedger, model: str) -> None:
    async with sdk(router, ledger.grant()) as client:
        answer = await client.chat.completions.create(
            model=model,
            messages=messages("Name a city."),
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": City.model_json_schema(), "strict": True},
            },
            reasoning_effort="low",
        )

    assert answer.choices[0].message.content == WORDS


@pytest.mark.parametrize("model", ["claude-sonnet", "gemini-flash"])
async def test_what_a_format_cannot_say_is_a_bad_request_that_names_it(
    router: Router, ledger: FakeLedger, model: str
) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            await client.chat.completions.create(model=model, messages=messages("Hi"), logprobs=True)

    record = await only_record(ledger, key)
    assert (record.outcome, record.status, len(record.attempts)) == (usage_pb2.OUTCOME_REFUSED, 400, 0)


async def test_who_cannot_say_it_is_passed_over_for_who_can(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        await client.chat.completions.create(
            model="claude-or-gpt", messages=messages("Hi simulate:status=503@anthropic"), logprobs=True
        )

    assert [attempt.provider for attempt in (await only_record(ledger, key)).attempts] == ["openai-more"]


async def test_another_format_answers_when_the_first_fails(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        answer = await client.chat.completions.create(
            model="claude-or-gpt", messages=messages("Hi simulate:status=503@more")
        )

    assert answer.choices[0].message.content == WORDS
    assert [(each.provider, each.status) for each in (await only_record(ledger, key)).attempts] == [
        ("openai-more", 503),
        ("anthropic", 200),
    ]


async def test_a_response_is_answered_whole_and_streamed(router: Router, ledger: FakeLedger) -> None:
    keys = [ledger.grant() for _ in range(3)]
    prompt = "Hello there simulate:cached=1 simulate:reasoning=2 simulate:searches=1"
    async with sdk(router, keys[0]) as client:
        whole = await client.responses.create(model="gpt-5-mini", input=prompt, instructions="Be brief.")
    async with sdk(router, keys[1]) as client:
        events = [event async for event in await client.responses.create(model="gpt-5-mini", input=prompt, stream=True)]
    in_sync = await in_thread(
        router,
        keys[2],
        lambda client: client.responses.create(model="gpt-5-mini", input=[{"role": "user", "content": prompt}]),
    )

    assert whole.output_text == in_sync.output_text == WORDS
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == WORDS
    assert events[-1].type == "response.completed"
    for key, words in zip(keys, (7, 5, 5), strict=True):
        record = await only_record(ledger, key)
        assert (record.endpoint, record.outcome) == (usage_pb2.ENDPOINT_RESPONSES, usage_pb2.OUTCOME_SUCCESS)
        assert (record.usage.input_tokens, record.usage.output_tokens) == (words, 8)
        assert (record.usage.cached_input_tokens, record.usage.reasoning_tokens) == (1, 2)
        assert record.usage.web_searches == 1


async def test_a_response_calls_a_tool(router: Router, ledger: FakeLedger) -> None:
    async with sdk(router, ledger.grant()) as client:
        asked = await client.responses.create(
            model="gpt-5-mini", input="How is it? simulate:tool=weather", tools=[WEATHER_OF_RESPONSES]
        )
        (call,) = asked.output
        assert call.type == "function_call"
        answer = await client.responses.create(
            model="gpt-5-mini",
            input=[
                {"role": "user", "content": "How is it?"},
                {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
                {"type": "function_call_output", "call_id": call.call_id, "output": '{"degrees": 21}'},
            ],
        )

    assert (call.name, call.arguments) == ("weather", '{"city":"Ulm"}')
    assert answer.output_text == WORDS


async def test_texts_become_vectors(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        answer = await client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"])
    in_sync = await in_thread(
        router,
        ledger.grant(),
        lambda client: client.embeddings.create(model="text-embedding-3-small", input="one two", dimensions=4),
    )
    record = await only_record(ledger, key)

    assert [len(each.embedding) for each in answer.data] == [8, 8]
    assert len(in_sync.data[0].embedding) == 4
    assert record.endpoint == usage_pb2.ENDPOINT_EMBEDDINGS
    assert (record.usage.input_tokens, record.usage.output_tokens) == (3, 0)


async def test_images_are_counted_by_size_and_quality(router: Router, ledger: FakeLedger) -> None:
    by_tokens, by_image = ledger.grant(), ledger.grant()
    async with sdk(router, by_tokens) as client:
        await client.images.generate(model="gpt-image-1", prompt="a toll gate", n=2, size="auto", quality="high")
    answer = await in_thread(
        router,
        by_image,
        lambda client: client.images.generate(model="dall-e-3", prompt="a toll gate", size="1792x1024", quality="hd"),
    )
    with_tokens, without = await only_record(ledger, by_tokens), await only_record(ledger, by_image)

    assert answer.data is not None and len(answer.data) == 1
    assert with_tokens.endpoint == usage_pb2.ENDPOINT_IMAGE_GENERATIONS
    assert (with_tokens.usage.input_tokens, with_tokens.usage.output_image_tokens) == (3, 2 * 1056)
    assert images_of(with_tokens) == [("1024x1024", "high", 2)]
    assert images_of(without) == [("1792x1024", "hd", 1)]
    assert (with_tokens.usage_source, without.usage_source) == (
        usage_pb2.USAGE_SOURCE_REPORTED,
        usage_pb2.USAGE_SOURCE_ESTIMATED,
    )


async def test_a_streamed_image_is_counted(router: Router, ledger: FakeLedger) -> None:
    key = ledger.grant()
    async with sdk(router, key) as client:
        stream = await client.images.generate(
            model="gpt-image-1", prompt="a toll gate", stream=True, partial_images=2, size="1536x1024"
        )
        kinds = [event.type async for event in stream]
    record = await only_record(ledger, key)

    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert record.outcome == usage_pb2.OUTCOME_SUCCESS
    assert (record.usage.output_image_tokens, record.usage_source) == (1056, usage_pb2.USAGE_SOURCE_REPORTED)
    assert images_of(record) == [("1536x1024", "medium", 1)]


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet", "gemini-flash"])
async def test_a_stream_that_breaks_off_raises_where_it_breaks(router: Router, ledger: FakeLedger, model: str) -> None:
    words: list[str | None] = []
    async with sdk(router, ledger.grant()) as client:
        stream = await client.chat.completions.create(
            model=model, messages=messages("Hello simulate:break_after=3 simulate:chunk_ms=20"), stream=True
        )
        with pytest.raises(openai.APIError, match="broke off"):
            async for chunk in stream:
                words.append(chunk.choices[0].delta.content)

    assert words == ["", "word-1", " word-2", " word-3"]


async def test_a_streamed_response_that_breaks_off_raises_too(router: Router, ledger: FakeLedger) -> None:
    async with sdk(router, ledger.grant()) as client:
        stream = await client.responses.create(model="gpt-5-mini", input="Hello simulate:break_after=3", stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("grant", "prompt", "error"),
    [
        pytest.param({}, "Hello simulate:status=400", openai.BadRequestError, id="refused by the provider"),
        pytest.param({}, "Hello simulate:status=503", openai.InternalServerError, id="every provider failed"),
        pytest.param({"read_only": True}, "Hello", openai.PermissionDeniedError, id="read-only key"),
        pytest.param({"credit_available": False}, "Hello", openai.APIStatusError, id="no credit"),
    ],
)
async def test_our_errors_are_its_errors(
    router: Router, ledger: FakeLedger, grant: dict[str, Any], prompt: str, error: type[openai.APIStatusError]
) -> None:
    for model in ("gpt-5-mini", "claude-sonnet", "gemini-flash"):
        async with sdk(router, ledger.grant(**grant)) as client:
            with pytest.raises(error) as raised:
                await client.chat.completions.create(model=model, messages=messages(prompt))
        assert raised.value.response.headers["x-tollgate-request-id"]


async def test_a_key_or_a_model_that_is_not_there_is_told_as_openai_tells_it(
    router: Router, ledger: FakeLedger
) -> None:
    async with sdk(router, "tg_unknown") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.embeddings.create(model="text-embedding-3-small", input="Hi")
    async with sdk(router, ledger.grant()) as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="gpt-nothing", input="Hi")


@pytest.mark.parametrize("model", ["claude-sonnet", "gemini-flash"])
async def test_a_provider_s_refusal_comes_in_its_words_and_openai_s_shape(
    router: Router, ledger: FakeLedger, model: str
) -> None:
    async with sdk(router, ledger.grant()) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="failing, as asked") as raised:
            await client.chat.completions.create(model=model, messages=messages("Hello simulate:status=422"))

    assert isinstance(raised.value.body, dict)
    assert raised.value.body["message"] == "failing, as asked"
