"""The official SDK raises its own errors for ours, also in mid-stream."""

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.integration.router.fake_ledger import FakeLedger
from tests.integration.router.processes import Router


def messages(prompt: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": prompt}]


def sdk(router: Router, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0)


async def test_a_stream_that_breaks_off_raises_where_it_breaks(router: Router, ledger: FakeLedger) -> None:
    words: list[str | None] = []
    async with sdk(router, ledger.grant()) as client:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=messages("Hello simulate:break_after=3"), stream=True
        )
        with pytest.raises(openai.APIError, match="broke off"):
            async for chunk in stream:
                words.append(chunk.choices[0].delta.content)

    assert words == ["", "word-1", " word-2", " word-3"]


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
    async with sdk(router, ledger.grant(**grant)) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model="gpt-4o", messages=messages(prompt))

    assert raised.value.response.headers["x-tollgate-request-id"]
