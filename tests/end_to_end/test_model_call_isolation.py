"""A model call learns nothing of another organization either, whatever it names: a project, a retry, words said before.

As in `test_isolation`, two strangers are told the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import orjson
import pytest
import yaml

from development.stack import Stack
from tests.end_to_end.contracts import ROOT, Method, Names, RestRequest, every_method
from tests.end_to_end.strangers import (
    KINDS,
    NOWHERE,
    SHOWING_NOTHING,
    Stranger,
    Theirs,
    Told,
    make_stranger,
    make_theirs,
)

WORDS = [{"role": "user", "content": "Say what they said."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt-4o", "messages": WORDS},
    "/v1/responses": {"model": "gpt-4o", "input": "Say what they said."},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "Say what they said."},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "Paint what they said."},
    "/v1/messages": {"model": "claude-sonnet-5", "max_tokens": 8, "messages": WORDS},
}
PATHS_OF_METHODS = {
    "CreateChatCompletion": "/v1/chat/completions",
    "StreamChatCompletion": "/v1/chat/completions",
    "CreateResponse": "/v1/responses",
    "StreamResponse": "/v1/responses",
    "CreateEmbedding": "/v1/embeddings",
    "GenerateImage": "/v1/images/generations",
    "StreamImage": "/v1/images/generations",
    "CreateMessage": "/v1/messages",
    "StreamMessage": "/v1/messages",
}
METHODS = [method for method in every_method() if method.holds_model_call]
LISTS = ("/v1/models", "/v1/models/gpt-4o", "/health")


@dataclass(frozen=True, slots=True)
class Call:
    """What a call names besides its model."""

    project_header: bool = False
    project_in_body: bool = False
    is_retry: bool = False

    def headers(self, names: Names, occasion: str) -> dict[str, str]:
        project_id = names["project_id"] if self.project_header else "web"
        headers = {} if self.project_in_body else {"x-tollgate-project": project_id}
        return headers | ({"idempotency-key": f"{names['source']} {occasion}"} if self.is_retry else {})

    def body(self, names: Names, path: str) -> dict[str, Any]:
        return BODIES[path] | ({"project_id": names["project_id"]} if self.project_in_body else {})


RETRY = Call(is_retry=True)
CALLS = [Call(), Call(project_header=True), Call(project_in_body=True), RETRY]
Ask = Callable[[Stranger, str, Call, Names], Told]


@pytest.fixture(scope="module")
def theirs(operator: Any, make_customer: Callable[..., Any]) -> Theirs:
    return make_theirs(operator, make_customer(payload_retained=True))


@pytest.fixture(scope="module")
def strangers(stack: Stack, operator: Any, make_customer: Callable[..., Any]) -> tuple[Stranger, Stranger]:
    one, other = (make_stranger(stack, operator, make_customer(display_name="Caller")) for _ in range(2))
    return one, other


def assert_tells_nothing(ask: Ask, stack: Stack, theirs: Theirs, strangers: tuple[Stranger, Stranger]) -> None:
    # So that there is an answer that a stranger could be given in place of its own.
    assert ask(Stranger(stack, {"owner": theirs.customer.api}), "owner", RETRY, theirs.names).succeeded

    for kind, call in product(KINDS, CALLS):
        one, other = (
            ask(stranger, kind, call, names) for stranger, names in zip(strangers, (theirs.names, NOWHERE), strict=True)
        )
        assert one.without(theirs.names) == other.without(NOWHERE), (kind, call)
        assert not [word for word in theirs.hidden if word in one.all_words], (kind, call, one)
        assert one.status not in SHOWING_NOTHING, (kind, call, one)


def test_every_model_route_is_walked() -> None:
    gateway = yaml.safe_load((ROOT / "gateway-envoy" / "envoy.yaml").read_text())
    manager = gateway["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    matches = [
        route["match"]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
        if route.get("route", {}).get("cluster") == "router_http"
    ]

    paths = {match.get("path") or match["path_separated_prefix"] for match in matches}
    assert paths == {*BODIES, "/v1/models", "/health"}
    assert {method.descriptor.name for method in METHODS} == {*PATHS_OF_METHODS}


@pytest.mark.parametrize("path", [*BODIES, *LISTS])
def test_a_model_route_says_the_same_of_what_is_another_s_and_of_what_does_not_exist(
    stack: Stack, theirs: Theirs, strangers: tuple[Stranger, Stranger], path: str
) -> None:
    def ask(stranger: Stranger, kind: str, call: Call, names: Names) -> Told:
        request = (
            RestRequest("POST", path, call.body(names, path)) if path in BODIES else RestRequest("GET", path, None)
        )
        return stranger.rest(request, kind, call.headers(names, path))

    assert_tells_nothing(ask, stack, theirs, strangers)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_model_call_over_grpc_says_the_same_of_what_is_another_s_and_of_what_does_not_exist(
    stack: Stack, theirs: Theirs, strangers: tuple[Stranger, Stranger], method: Method
) -> None:
    def ask(stranger: Stranger, kind: str, call: Call, names: Names) -> Told:
        body = call.body(names, PATHS_OF_METHODS[method.descriptor.name]) | ({"stream": True} if method.streams else {})
        request = method.request_class()
        request.body.content_type, request.body.data = "application/json", orjson.dumps(body)
        return stranger.grpc(method, request, kind, call.headers(names, str(method)))

    assert_tells_nothing(ask, stack, theirs, strangers)
