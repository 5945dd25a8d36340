"""`GET /v1/models` lists what the caller may use, where, and for how much."""

import asyncio
from typing import Any

import openai

from tests.integration.router.fake_ledger import PRICES, FakeLedger
from tests.integration.router.processes import Router
from tollgate.ledger.v1 import directory_service_pb2

PRICE_SECONDS_MAX = 20


async def listed(router: Router, key: str) -> dict[str, Any]:
    answer = await router.send("GET", "/v1/models", None, key)
    assert answer.status == 200, answer
    return {model["id"]: model for model in answer.json["data"]}


async def test_every_model_is_listed_with_who_offers_it_for_what(router: Router, ledger: FakeLedger) -> None:
    models = await listed(router, ledger.grant())

    assert [each["name"] for each in models["claude-or-gpt"]["providers"]] == ["openai-more", "anthropic"]
    assert models["claude-or-gpt"]["providers"][1]["endpoints"] == ["chat_completions", "messages"]
    assert models["text-embedding-3-small"]["providers"][0]["endpoints"] == ["embeddings"]
    assert models["claude-sonnet"]["providers"][0]["output_tokens_max"] == 64000
    assert models["claude-sonnet"]["object"] == "model"


async def test_prices_are_shown_as_the_ledger_has_them_and_unknown_is_not_zero(
    router: Router, ledger: FakeLedger
) -> None:
    version = PRICES[0]
    key = ledger.grant()
    async with asyncio.timeout(PRICE_SECONDS_MAX):
        while True:
            models = await listed(router, key)
            offers = {each["name"]: each for each in models[version.model]["providers"]}
            if offers[version.provider]["prices"]:
                break
            await asyncio.sleep(0.1)

    units = {price["unit"]: price["price"] for price in offers[version.provider]["prices"]}
    assert units["input_token"] == version.prices.unit_prices[0].price
    assert models["gemini-flash"]["providers"][0]["prices"] is None


async def test_a_project_of_own_keys_sees_what_they_open(router: Router, ledger: FakeLedger) -> None:
    own_keys = directory_service_pb2.PROJECT_MODE_OWN_KEYS
    models = await listed(router, ledger.grant(own_keys={"azure": "sk-own-azure"}, project_mode=own_keys))

    assert [(name, [each["name"] for each in model["providers"]]) for name, model in models.items()] == [
        ("gpt-4o", ["azure"])
    ]


async def test_the_official_sdk_lists_models_and_finds_one(router: Router, ledger: FakeLedger) -> None:
    async with openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key=ledger.grant(), max_retries=0) as client:
        names = [model.id async for model in client.models.list()]
        found = await client.models.retrieve("gpt-4o")
        try:
            await client.models.retrieve("gpt-nothing")
        except openai.NotFoundError as error:
            missing = error

    assert "claude-sonnet" in names
    assert (found.id, found.owned_by) == ("gpt-4o", "openai")
    assert missing.code == "model_not_found"
