"""No key learns anything of another organization: every method and every path, aimed at another's and at nothing.

Two strangers who have the same send the same requests. What one names is somebody's, what the other names is nobody's:
they are told the same, word for word.
"""

import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from development.stack import Stack
from tests.end_to_end.contracts import (
    PLAIN,
    ROOT,
    Method,
    Names,
    RestRequest,
    every_method,
    rest_request,
    verb_and_path,
)
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
from tollgate.access.v1 import access_pb2

# Those that hold a model call as it came are walked by `test_model_call_isolation`.
METHODS = [method for method in every_method() if not method.holds_model_call]
REST_METHODS = [method for method in METHODS if method.rules]
# Names that a path needs where something else is aimed at: a stranger's own, or nothing.
OTHERWISE: Names = {**NOWHERE, "project_id": "web", "provider": "openai"}


# What reads things that have an owner; prices have none.
OWNERS_METHODS = [method for method in REST_METHODS if not method.access.writes and "PriceService" not in str(method)]


@pytest.fixture(scope="module")
def theirs(operator: Any, make_customer: Callable[..., Any]) -> Iterator[Theirs]:
    """Whatever strangers try, it stays as it is."""
    made = make_theirs(operator, make_customer(payload_retained=True))
    before = made.state()
    yield made
    assert made.state() == before


@pytest.fixture(scope="module")
def strangers(stack: Stack, operator: Any, make_customer: Callable[..., Any]) -> tuple[Stranger, Stranger]:
    """Two who differ in nothing but their ids."""
    one, other = (make_stranger(stack, operator, make_customer(display_name="Stranger")) for _ in range(2))
    return one, other


def aims(method: Method) -> list[frozenset[str]]:
    """What to name in a request: nothing, each thing alone, all of them."""
    names = sorted(method.texts & NOWHERE.keys())
    nothing = [] if method.access.writes and names else [frozenset[str]()]
    return [*nothing, *(frozenset({name}) for name in names), *([frozenset(names)] if len(names) > 1 else [])]


def assert_is_told_the_same(theirs: Theirs, one: Told, other: Told, kind: str, aim: frozenset[str]) -> None:
    """And nothing of theirs."""
    assert one.without(theirs.names) == other.without(NOWHERE), (kind, aim)
    assert not [word for word in theirs.hidden if word in one.all_words], (kind, aim, one)
    assert not (one.succeeded and [name for name in theirs.ids if name in one.all_words]), (kind, aim, one)
    assert one.status not in SHOWING_NOTHING, (kind, aim, one)


def test_every_text_of_every_request_is_known_to_name_something_or_nothing() -> None:
    public = [method for method in METHODS if method.access.scope != access_pb2.SCOPE_SERVICE]

    assert {name for method in public for name in method.texts} <= PLAIN | NOWHERE.keys()


def test_every_documented_path_is_walked() -> None:
    documented = json.loads((ROOT / "services" / "gen" / "openapi.json").read_text())["paths"]

    walked = {verb_and_path(rule) for method in REST_METHODS for rule in method.rules}

    assert walked == {(verb, path) for path, verbs in documented.items() for verb in verbs}


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_method_says_the_same_of_what_is_another_s_and_of_what_does_not_exist(
    method: Method, theirs: Theirs, strangers: tuple[Stranger, Stranger]
) -> None:
    for kind, aim in product(KINDS, aims(method)):
        one, other = (
            stranger.grpc(method, method.request(names, aim, OTHERWISE), kind)
            for stranger, names in zip(strangers, (theirs.names, NOWHERE), strict=True)
        )
        assert_is_told_the_same(theirs, one, other, kind, aim)


@pytest.mark.parametrize("method", REST_METHODS, ids=str)
def test_a_path_says_the_same_of_what_is_another_s_and_of_what_does_not_exist(
    method: Method, theirs: Theirs, strangers: tuple[Stranger, Stranger]
) -> None:
    for rule, kind, aim in product(method.rules, KINDS, aims(method)):
        one, other = (
            stranger.rest(rest_request(rule, method.request(names, aim, OTHERWISE)), kind)
            for stranger, names in zip(strangers, (theirs.names, NOWHERE), strict=True)
        )
        assert_is_told_the_same(theirs, one, other, kind, aim)


@pytest.mark.parametrize("method", OWNERS_METHODS, ids=str)
def test_what_strangers_ask_for_is_there_for_its_owner(method: Method, operator: Any, theirs: Theirs) -> None:
    """Else a walk would compare nothing with nothing."""
    api = operator if method.access.scope == access_pb2.SCOPE_OPERATOR else theirs.customer.api

    for aim in aims(method):
        request = rest_request(method.rules[0], method.request(theirs.names, aim, theirs.names))

        assert api.send(request.verb, request.path, request.body, {}).status == 200, aim


@pytest.mark.parametrize("method", [method for method in OWNERS_METHODS if "page_token" in method.texts], ids=str)
def test_a_page_token_of_another_s_list_shows_nothing_of_it(
    method: Method, theirs: Theirs, strangers: tuple[Stranger, Stranger]
) -> None:
    verb, path = verb_and_path(method.rules[0])
    page = theirs.customer.api.get(f"{path}?limit=1").body
    # Exports go on after a call, lists after a page; a short list has no more of them.
    token = (isinstance(page, dict) and page.get("next_page_token")) or theirs.names["request_id"]

    for kind in KINDS:
        told = strangers[0].rest(RestRequest(verb.upper(), f"{path}?page_token={token}", None), kind)

        assert not [word for word in (*theirs.hidden, *theirs.ids) if word in told.body.replace(token, "…")], told
