"""What the gateway says of itself, to anybody, and what it leaves out for those who know the answer."""

import json
import re

import pytest
from google.api import annotations_pb2

from tests.architecture.test_contracts import REST_METHODS
from tests.integration.gateway.front_door import FrontDoor


async def test_anybody_may_have_the_document_of_every_path(front_door: FrontDoor) -> None:
    answer = await front_door.get("/openapi.json", key=None)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    for method in REST_METHODS:
        rule = method.proto.options.Extensions[annotations_pb2.http]
        for one in (rule, *rule.additional_bindings):
            verb = one.WhichOneof("pattern")
            path = re.sub(r"\{(\w+)=[^}]*\}", r"{\1}", getattr(one, verb))
            assert answer.json["paths"][path][verb]["responses"]["200"]


async def test_the_document_spells_as_the_gateway_does(front_door: FrontDoor) -> None:
    document = (await front_door.get("/openapi.json", key=None)).json
    (day,) = (await front_door.get("/activity")).json["activity"]
    (call,) = (await front_door.get("/v1/requests")).json["requests"]

    schemas = document["components"]["schemas"]
    assert set(schemas["reporting.v1.ActivityPeriod"]["properties"]) == set(day)
    assert set(schemas["reporting.v1.ActivityPeriod"]["required"]) == set(day)
    assert set(schemas["reporting.v1.RequestSummary"]["required"]) <= set(call)
    names = {one["name"] for one in document["paths"]["/activity"]["get"]["parameters"]}
    assert {"from", "to", "projectId", "groupBy"} <= names
    assert {"from", "project_id"} <= {one["name"] for one in document["paths"]["/v1/requests"]["get"]["parameters"]}


async def test_the_page_for_people_needs_nothing_else(front_door: FrontDoor) -> None:
    answer = await front_door.get("/docs", key=None)

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "GET /v1/analytics" in answer.text
    assert not re.search("(src|href)=[^>]*//|<script|@import|url[(]", answer.text)


@pytest.mark.parametrize("path", ["/openapi.json/", "/docs/x", "/openapi", "/v1/docs"])
async def test_nothing_else_is_had_without_a_key(front_door: FrontDoor, path: str) -> None:
    assert (await front_door.get(path, key=None)).status == 401


async def test_an_answer_that_is_known_is_not_sent_again(front_door: FrontDoor) -> None:
    answer = await front_door.get("/v1/requests?page_token=unchanged", if_none_match='W/"known"')

    assert (answer.status, answer.text) == (304, "")
    assert answer.headers["etag"] == 'W/"known"'
    assert "x-tollgate-not-modified" not in answer.headers
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("path", ["/activity", "/v1/nothing", "/openapi.json", "/v1/models"])
async def test_every_answer_carries_the_headers_that_protect(front_door: FrontDoor, path: str) -> None:
    headers = (await front_door.get(path)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"].startswith(("private", "public, max-age=300"))


async def test_the_document_is_json_for_everybody(front_door: FrontDoor) -> None:
    zipped = await front_door.get("/openapi.json", key=None, accept_encoding="gzip")

    assert json.loads(zipped.text)["openapi"].startswith("3.1")
