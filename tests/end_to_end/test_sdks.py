"""The official SDKs, unmodified, through the front door and onto the bill: every endpoint, every provider's format."""

import asyncio
import base64
from collections.abc import Callable
from decimal import Decimal

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionToolParam

from development.simulator.images_format import PIXEL
from development.stack import Stack
from tests.end_to_end.conftest import Customer, Json

WORDS = "word-1 word-2 word-3 word-4 word-5 word-6 word-7 word-8"
PIXEL_URL = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
PROJECT = {"x-tollgate-project": "web"}
CHAT_MODELS = ["gpt-4o", "claude-sonnet-5", "gemini-2.5-flash"]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def of_openai(stack: Stack, customer: Customer) -> openai.OpenAI:
    assert customer.api.key is not None
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=customer.api.key, default_headers=PROJECT, max_retries=0)


@pytest.fixture
def of_anthropic(stack: Stack, customer: Customer) -> anthropic.Anthropic:
    assert customer.api.key is not None
    return anthropic.Anthropic(base_url=stack.url, api_key=customer.api.key, default_headers=PROJECT, max_retries=0)


def billed(customer: Customer, request_id: str | None) -> Json:
    """The call as reporting shows it, priced to the last digit."""
    assert request_id is not None
    call = customer.api.call(request_id)
    assert call["cost_lines"], call
    total = sum((Decimal(line["cost"]) for line in call["cost_lines"]), Decimal(0))
    assert total > 0
    return call


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_chat_completion_with_an_image_and_a_tool_is_answered_and_billed(
    of_openai: openai.OpenAI, customer: Customer, model: str
) -> None:
    raw = of_openai.chat.completions.with_raw_response.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "How is the weather here? simulate:tool=weather"},
                    {"type": "image_url", "image_url": {"url": PIXEL_URL}},
                ],
            }
        ],
        tools=[WEATHER],
    )
    calls = raw.parse().choices[0].message.tool_calls

    assert calls is not None and calls[0].type == "function"
    assert calls[0].function.arguments == '{"city":"Ulm"}'
    bill = billed(customer, raw.headers.get("x-tollgate-request-id"))
    assert (bill["request"]["model"], bill["request"]["endpoint"]) == (model, "chat_completions")
    assert (bill["usage"]["input_tokens"], bill["usage"]["output_tokens"]) == (6, 8)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_streamed_chat_completion_is_answered_and_billed(
    of_openai: openai.OpenAI, customer: Customer, model: str
) -> None:
    stream = of_openai.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello there"}], stream=True
    )
    text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)

    assert text == WORDS
    assert billed(customer, stream.response.headers.get("x-tollgate-request-id"))["request"]["streamed"] is True


async def test_the_async_clients_answer_several_calls_at_once(stack: Stack, customer: Customer) -> None:
    assert customer.api.key is not None
    key = customer.api.key
    async with (
        openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key, default_headers=PROJECT) as one,
        anthropic.AsyncAnthropic(base_url=stack.url, api_key=key, default_headers=PROJECT) as other,
    ):
        chats = (
            one.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
            for model in CHAT_MODELS
        )
        message = other.messages.create(
            model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
        )
        completions, answer = await asyncio.gather(asyncio.gather(*chats), message)

    assert {completion.choices[0].message.content for completion in completions} == {WORDS}
    assert answer.content[0].type == "text" and answer.content[0].text == WORDS


def test_responses_whole_and_streamed_are_answered_and_billed(of_openai: openai.OpenAI, customer: Customer) -> None:
    raw = of_openai.responses.with_raw_response.create(model="gpt-5-mini", input="Hello there simulate:cached=2")
    stream = of_openai.responses.create(model="gpt-5-mini", input="Hello there", stream=True)
    text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")

    assert raw.parse().output_text == text == WORDS
    assert billed(customer, raw.headers.get("x-tollgate-request-id"))["request"]["endpoint"] == "responses"
    assert billed(customer, stream.response.headers.get("x-tollgate-request-id"))["usage"]["output_tokens"] == 8


def test_vectors_and_images_are_made_and_billed(of_openai: openai.OpenAI, customer: Customer) -> None:
    vectors = of_openai.embeddings.with_raw_response.create(model="text-embedding-3-small", input=["one two", "three"])
    images = of_openai.images.with_raw_response.generate(model="gpt-image-1", prompt="a toll gate", size="1024x1024")

    assert len(vectors.parse().data) == 2
    assert billed(customer, vectors.headers.get("x-tollgate-request-id"))["usage"]["input_tokens"] == 3
    data = images.parse().data
    assert data is not None and data[0].b64_json == base64.b64encode(PIXEL).decode()
    assert billed(customer, images.headers.get("x-tollgate-request-id"))["request"]["endpoint"] == "image_generations"


def test_messages_whole_and_streamed_are_answered_and_billed(
    of_anthropic: anthropic.Anthropic, customer: Customer
) -> None:
    prompt = "Hi simulate:prompt=100 simulate:cached=30 simulate:cache_write=20"
    raw = of_anthropic.messages.with_raw_response.create(
        model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": prompt}]
    )
    with of_anthropic.messages.stream(
        model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        text = "".join(stream.text_stream)

    assert text == WORDS
    bill = billed(customer, raw.headers.get("x-tollgate-request-id"))
    assert (bill["request"]["endpoint"], bill["usage"]["input_tokens"]) == ("messages", 100)
    assert {line["line"] for line in bill["cost_lines"]} == {"INPUT", "CACHED_INPUT", "CACHE_WRITE", "OUTPUT"}


@pytest.mark.parametrize(
    ("status", "of_openai_error", "of_anthropic_error"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
    ],
)
def test_errors_are_raised_as_each_sdk_knows_them(
    of_openai: openai.OpenAI,
    of_anthropic: anthropic.Anthropic,
    status: int,
    of_openai_error: type[openai.APIStatusError],
    of_anthropic_error: type[anthropic.APIStatusError],
) -> None:
    prompt = f"Hi simulate:status={status}"
    with pytest.raises(of_openai_error):
        of_openai.chat.completions.create(model="gemini-2.5-flash", messages=[{"role": "user", "content": prompt}])
    with pytest.raises(of_anthropic_error) as raised:
        of_anthropic.messages.create(
            model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": prompt}]
        )

    assert isinstance(raised.value.body, dict) and raised.value.body["type"] == "error"


def test_an_unknown_key_and_an_unknown_model_are_told_as_each_sdk_knows_them(
    stack: Stack, of_openai: openai.OpenAI, of_anthropic: anthropic.Anthropic
) -> None:
    use: list[tuple[type[Exception], Callable[[], object]]] = [
        (openai.NotFoundError, lambda: of_openai.embeddings.create(model="none", input="Hi")),
        (openai.NotFoundError, lambda: of_openai.models.retrieve("none")),
        (
            anthropic.NotFoundError,
            lambda: of_anthropic.messages.create(
                model="none", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            ),
        ),
        (
            openai.AuthenticationError,
            openai.OpenAI(base_url=f"{stack.url}/v1", api_key="tg_none").models.list,
        ),
    ]
    for error, call in use:
        with pytest.raises(error):
            call()


def test_the_models_are_listed_with_their_prices(of_openai: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in of_openai.models.list()}

    assert {*CHAT_MODELS, "text-embedding-3-small"} <= listed.keys()
    assert of_openai.models.retrieve("gpt-4o").owned_by == "openai"
    units = {price["unit"] for price in listed["gpt-4o"]["providers"][0]["prices"] or ()}
    assert {"input_token", "output_token"} <= units
