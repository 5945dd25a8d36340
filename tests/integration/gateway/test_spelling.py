"""What JSON looks like: the spelling of each family, and what is never left out."""

import pytest

from tests.integration.gateway.front_door import FrontDoor
from tests.integration.gateway.upstreams import OPERATOR_KEY
from tollgate.reporting.v1 import activity_service_pb2


async def test_the_activity_family_is_camel_case(front_door: FrontDoor) -> None:
    (day,) = (await front_door.get("/activity")).json["activity"]

    fields = activity_service_pb2.ActivityPeriod.DESCRIPTOR.fields
    assert set(day) == {field.json_name for field in fields}
    assert {"requestCount", "cachedInputCost", "apiKeysDataStorageCost", "modelBreakdown"} <= set(day)


async def test_the_other_families_are_snake_case(front_door: FrontDoor) -> None:
    listed = (await front_door.get("/v1/requests?page_token=next")).json
    call = (await front_door.get("/v1/requests/7")).json

    assert listed["next_page_token"] == "next"
    assert {"attempts", "cost_lines", "usage_source", "cost_exact"} <= set(call)
    assert {"api_key_id", "requested_model", "attempt_count"} <= set(listed["requests"][0])


async def test_numbers_are_numbers_and_whole_ones_look_it(front_door: FrontDoor) -> None:
    text = (await front_door.get("/activity")).text

    assert '"requestCount":3,' in text
    assert '"cost":0.1,' in text


async def test_zeros_and_empty_lists_are_there(front_door: FrontDoor) -> None:
    (day,) = (await front_door.get("/activity")).json["activity"]

    assert day["errorRate"] == 0
    assert day["costExact"] == ""
    assert day["modelBreakdown"] == []
    assert day["apiKeyBreakdown"] == []


async def test_unknown_is_null_and_zero_is_zero(front_door: FrontDoor) -> None:
    (row,) = (await front_door.get("/v1/requests")).json["requests"]

    assert row["input_tokens"] is None
    assert row["output_tokens"] == 0
    assert row["metadata"] == {}


async def test_exact_amounts_stay_strings(front_door: FrontDoor) -> None:
    assert (await front_door.get("/v1/balance")).json["balance"] == "0.000018450000"


@pytest.mark.parametrize("spelled", ["grant_id", "grantId"])
async def test_a_body_may_use_either_spelling(front_door: FrontDoor, spelled: str) -> None:
    body = f'{{"{spelled}": "g-1", "amount": "5"}}'.encode()

    answer = await front_door.ask("POST", "/v1/credit_grants", key=OPERATOR_KEY, body=body)

    assert answer.json["grant_id"] == "g-1"
    assert answer.json["amount"] == "5"


async def test_an_id_with_an_encoded_slash_is_one_id(front_door: FrontDoor) -> None:
    answer = await front_door.get("/v1/requests/openai%2Fgpt-4o")

    assert answer.json["request"]["id"] == "openai/gpt-4o"
