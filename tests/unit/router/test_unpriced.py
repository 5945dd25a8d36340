"""What costs more than its prices can say, or lets another model answer, is paid for by nobody's credit."""

from typing import Any

import orjson
import pytest

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import Endpoint
from services.router.formats.exchange import Target
from services.router.formats.registry import CHAT_COMPLETIONS, IMAGE_GENERATIONS, MESSAGES, RESPONSES, exchange_for

HI = [{"role": "user", "content": "Hi"}]
MINIMUM: dict[Endpoint, dict[str, Any]] = {
    CHAT_COMPLETIONS: {"messages": HI},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"messages": HI, "max_tokens": 9},
    IMAGE_GENERATIONS: {"prompt": "A cat"},
}
ON_CREDIT, OWN_KEY = Target(upstream_model="m"), Target(upstream_model="m", own_key=True)


def sent(endpoint: Endpoint, members: dict[str, Any], target: Target) -> bytes:
    """What a provider of the endpoint's own format gets."""
    exchange = exchange_for(endpoint, endpoint.native_format)
    assert exchange is not None
    body = orjson.dumps({"model": "m", **MINIMUM[endpoint], **members})
    return exchange.call(endpoint.read(body, {}), target).body


def tools(*kinds: str) -> dict[str, Any]:
    return {"tools": [{"type": kind} for kind in kinds]}


FUNCTION = {"type": "function", "function": {"name": "f"}}
OTHER = {"model": "another"}

refused = pytest.mark.parametrize(
    ("endpoint", "named", "members"),
    [
        pytest.param(MESSAGES, "speed", {"speed": "fast"}, id="Anthropic's fast mode"),
        pytest.param(MESSAGES, "Speed", {"Speed": "fast"}, id="whatever its case"),
        pytest.param(MESSAGES, "fallbacks", {"fallbacks": [OTHER]}, id="Anthropic's fallbacks to other models"),
        pytest.param(MESSAGES, "fallbacks", {"fallbacks": "default"}, id="fallbacks that Anthropic chooses"),
        pytest.param(
            MESSAGES, "fallback_credit_token", {"fallback_credit_token": "t"}, id="a discount after a refusal"
        ),
        pytest.param(MESSAGES, "inference_geo", {"inference_geo": "us"}, id="where Anthropic computes"),
        pytest.param(MESSAGES, "billing_policy", {"billing_policy": {"bill_to": "user_profile"}}, id="another payer"),
        pytest.param(MESSAGES, "tools[0]", tools("code_execution_20260120"), id="Anthropic's containers of code"),
        pytest.param(
            MESSAGES, "tools[1]", tools("web_search_20250305", "code_execution_20250825"), id="beside a plain search"
        ),
        pytest.param(MESSAGES, "tools[0]", tools("advisor_20260301"), id="Anthropic's advisor, another model"),
        pytest.param(MESSAGES, "tools[0]", tools("video_20270101"), id="a tool of Anthropic's that nobody knows yet"),
        pytest.param(CHAT_COMPLETIONS, "models", {"models": ["another"]}, id="OpenRouter's other models"),
        pytest.param(CHAT_COMPLETIONS, "route", {"route": "fallback"}, id="OpenRouter's route"),
        pytest.param(CHAT_COMPLETIONS, "provider", {"provider": {"sort": "latency"}}, id="OpenRouter's providers"),
        pytest.param(CHAT_COMPLETIONS, "preset", {"preset": "mine"}, id="OpenRouter's presets"),
        pytest.param(CHAT_COMPLETIONS, "plugins", {"plugins": [{"id": "web"}]}, id="OpenRouter's plugins"),
        pytest.param(CHAT_COMPLETIONS, "fallbacks", {"fallbacks": ["another"]}, id="fallbacks of other gateways"),
        pytest.param(CHAT_COMPLETIONS, "web_search_options", {"web_search_options": {}}, id="searches nobody counts"),
        pytest.param(CHAT_COMPLETIONS, "search_parameters", {"search_parameters": {"mode": "on"}}, id="xAI's searches"),
        pytest.param(CHAT_COMPLETIONS, "enable_search", {"enable_search": True}, id="Alibaba's searches"),
        pytest.param(CHAT_COMPLETIONS, "service_tier", {"service_tier": "ultrafast"}, id="a tier without a price"),
        pytest.param(CHAT_COMPLETIONS, "tools[1]", {"tools": [FUNCTION, {"type": "x"}]}, id="a provider's own tool"),
        pytest.param(
            RESPONSES, "service_tier", {"service_tier": "ultrafast"}, id="a tier of responses without a price"
        ),
        pytest.param(RESPONSES, "tools[0]", tools("code_interpreter"), id="OpenAI's containers of code"),
        pytest.param(RESPONSES, "tools[0]", tools("image_generation"), id="images by another model"),
        pytest.param(RESPONSES, "tools[0]", tools("file_search"), id="searches of files"),
        pytest.param(RESPONSES, "tools[0]", tools("shell"), id="OpenAI's shell"),
        pytest.param(RESPONSES, "tools[0]", tools("web_search_preview"), id="the older search, of two prices"),
        pytest.param(
            RESPONSES,
            "input[1].tools[0]",
            {"input": [*HI, {"type": "additional_tools", **tools("code_interpreter")}]},
            id="tools that come later",
        ),
        pytest.param(
            RESPONSES, "prompt_cache_options", {"prompt_cache_options": {"ttl": "12h"}}, id="a cache of twelve hours"
        ),
        pytest.param(IMAGE_GENERATIONS, "output_format", {"output_format": "svg"}, id="drawings that a model writes"),
    ],
)


@refused
def test_on_credit_it_is_refused_by_name(endpoint: Endpoint, named: str, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="beyond what its prices say") as refusal:
        sent(endpoint, members, ON_CREDIT)

    assert refusal.value.message.startswith(f"{named} can change what the call costs")


@refused
def test_with_an_own_key_it_goes_on_as_it_came(endpoint: Endpoint, named: str, members: dict[str, Any]) -> None:
    body = orjson.loads(sent(endpoint, members, OWN_KEY))

    assert body == {"model": "m", **MINIMUM[endpoint], **members}


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        pytest.param(MESSAGES, {"speed": "standard", "inference_geo": "global", "fallbacks": None}, id="the ordinary"),
        pytest.param(MESSAGES, {"service_tier": "standard_only"}, id="Anthropic's tiers"),
        pytest.param(MESSAGES, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}, id="a cache of one hour"),
        pytest.param(MESSAGES, {"tools": [{"name": "f", "input_schema": {}}]}, id="Anthropic's functions"),
        pytest.param(MESSAGES, tools("web_search_20250305", "web_fetch_20250910"), id="searches, which are counted"),
        pytest.param(
            MESSAGES, tools("code_execution_20260120", "web_search_20260209"), id="code that is free beside a search"
        ),
        pytest.param(MESSAGES, tools("bash_20250124", "mcp_toolset", "tool_search_tool_bm25"), id="nothing but tokens"),
        pytest.param(CHAT_COMPLETIONS, {"transforms": ["middle-out"]}, id="a prompt that is made shorter"),
        pytest.param(CHAT_COMPLETIONS, {"models": [], "plugins": [], "enable_search": False}, id="nothing asked for"),
        *(
            pytest.param(CHAT_COMPLETIONS, {"service_tier": tier}, id=f"the tier {tier}, which has a price")
            for tier in ("auto", "default", "flex", "priority")
        ),
        pytest.param(
            CHAT_COMPLETIONS, {"prediction": {"type": "content", "content": "x"}}, id="predictions, which are counted"
        ),
        pytest.param(
            CHAT_COMPLETIONS,
            {"n": 2, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
            id="several answers, and speech",
        ),
        pytest.param(CHAT_COMPLETIONS, {"tools": [FUNCTION, {"type": "custom"}]}, id="functions"),
        pytest.param(RESPONSES, tools("function", "custom", "mcp", "web_search"), id="tools of responses"),
        pytest.param(RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "local"}}]}, id="one's own shell"),
        pytest.param(
            RESPONSES, {"input": [*HI, {"type": "mcp_list_tools", "tools": [{"name": "f"}]}]}, id="tools of a server"
        ),
        pytest.param(RESPONSES, {"prompt_cache_options": {"ttl": "30m"}}, id="the ordinary cache"),
        pytest.param(IMAGE_GENERATIONS, {"output_format": "webp", "n": 2}, id="images"),
    ],
)
def test_what_prices_can_say_goes_on_with_credit(endpoint: Endpoint, members: dict[str, Any]) -> None:
    body = orjson.loads(sent(endpoint, members, ON_CREDIT))

    assert body.items() >= members.items()


@pytest.mark.parametrize(("provider_format", "tool"), [("anthropic", "web_search"), ("gemini", "googleSearch")])
def test_searches_of_chat_completions_go_to_those_who_count_them(provider_format: str, tool: str) -> None:
    exchange = exchange_for(CHAT_COMPLETIONS, provider_format)
    assert exchange is not None
    request = CHAT_COMPLETIONS.read(orjson.dumps({"model": "m", "messages": HI, "web_search_options": {}}), {})

    assert tool.encode() in exchange.call(request, ON_CREDIT).body
