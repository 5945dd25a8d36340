"""Clients that nobody here wrote work with only the address and the key changed."""

from typing import Any

import grpc
import openai
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from tollgate.router.v1 import inference_service_pb2 as pb
from tollgate.router.v1 import inference_service_pb2_grpc

MESSAGES: Any = [{"role": "user", "content": "What does a toll gate do?"}]
WEB = {"x-tollgate-project": "web"}


def sdk(customer: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{customer.api.url}/v1", api_key=customer.api.key, default_headers=WEB, max_retries=0
    )


def async_sdk(customer: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{customer.api.url}/v1", api_key=customer.api.key, default_headers=WEB, max_retries=0
    )


def test_the_openai_sdk_gets_a_plain_answer_and_its_usage_is_billed(customer: Any) -> None:
    with sdk(customer) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
    completion = raw.parse()

    assert completion.choices[0].message.content
    assert completion.usage is not None
    call = customer.api.call(raw.headers["x-tollgate-request-id"])
    assert call["usage"]["input_tokens"] == completion.usage.prompt_tokens
    assert call["usage"]["output_tokens"] == completion.usage.completion_tokens
    assert (raw.headers["x-tollgate-provider"], raw.headers["x-tollgate-model"]) == ("openai", "gpt-4o")


def test_the_openai_sdk_streams_and_sees_no_usage_it_did_not_ask_for(customer: Any) -> None:
    with (
        sdk(customer) as client,
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True) as stream,
    ):
        chunks = list(stream)
        request_id = stream.response.headers["x-tollgate-request-id"]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    call = customer.api.call(request_id)
    assert (call["usage_source"], call["request"]["streamed"]) == ("reported", True)


def test_the_openai_sdk_sees_the_stream_s_usage_when_it_asks(customer: Any) -> None:
    with (
        sdk(customer) as client,
        client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ) as stream,
    ):
        last = list(stream)[-1]
        request_id = stream.response.headers["x-tollgate-request-id"]

    assert last.usage is not None
    assert customer.api.call(request_id)["usage"]["output_tokens"] == last.usage.completion_tokens


async def test_the_async_openai_sdk_works_plain_and_streaming(customer: Any) -> None:
    async with async_sdk(customer) as client:
        plain = await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        stream = await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert plain.choices[0].message.content == streamed


def test_the_openai_sdk_raises_its_own_typed_errors_for_ours(customer: Any) -> None:
    with sdk(customer) as client:
        with pytest.raises(openai.NotFoundError, match="gpt-nothing"):
            client.chat.completions.create(model="gpt-nothing", messages=MESSAGES)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="tg_wrong").chat.completions.create(model="gpt-4o", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="gpt-4o", messages="not a list")  # type: ignore[arg-type]


def test_the_models_a_key_may_call_are_listed(customer: Any) -> None:
    with sdk(customer) as client:
        assert "gpt-4o" in {model.id for model in client.models.list()}


@pytest.fixture
async def inference(stack: Any) -> Any:
    async with grpc.aio.insecure_channel(stack.addresses.front_door) as channel:
        yield inference_service_pb2_grpc.InferenceServiceStub(channel)


def metadata_of(customer: Any) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {customer.api.key}"), ("x-tollgate-project", "web"))


def body_of(**more: object) -> HttpBody:
    data = orjson.dumps({"model": "gpt-4o", "messages": MESSAGES, **more})
    return HttpBody(content_type="application/json", data=data)


async def test_the_same_call_works_by_grpc_through_the_same_door(customer: Any, inference: Any) -> None:
    call = inference.CreateChatCompletion(
        pb.CreateChatCompletionRequest(body=body_of()), metadata=metadata_of(customer), timeout=10
    )
    answer = orjson.loads((await call).body.data)
    headers = dict(await call.initial_metadata())

    recorded = customer.api.call(headers["x-tollgate-request-id"])
    assert recorded["usage"]["output_tokens"] == answer["usage"]["completion_tokens"]


async def test_a_stream_by_grpc_carries_the_bytes_of_the_event_stream(customer: Any, inference: Any) -> None:
    call = inference.StreamChatCompletion(
        pb.StreamChatCompletionRequest(body=body_of(stream=True)), metadata=metadata_of(customer), timeout=10
    )
    pieces = [piece.body async for piece in call]

    assert pieces[0].content_type.startswith("text/event-stream")
    assert b"".join(piece.data for piece in pieces).endswith(b"data: [DONE]\n\n")


async def test_grpc_names_the_reason_when_a_call_is_refused(customer: Any, inference: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await inference.CreateChatCompletion(
            pb.CreateChatCompletionRequest(body=body_of(model="gpt-nothing")),
            metadata=metadata_of(customer),
            timeout=10,
        )

    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert "gpt-nothing" in str(raised.value.details())
