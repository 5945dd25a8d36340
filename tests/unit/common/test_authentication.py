import pytest

from services.common.authentication import Caller, Scope, hash_key, key_from_headers
from services.common.errors import ForbiddenError, InvalidApiKeyError, InvalidRequestError, ReadOnlyKeyError

OPERATOR = Caller(scope=Scope.OPERATOR)
ORGANIZATION = Caller(scope=Scope.ORGANIZATION, organization_id="org-1")
PROJECT = Caller(scope=Scope.PROJECT, organization_id="org-1", project_id="web")


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({"authorization": "Bearer tg_1"}, "tg_1", id="bearer token"),
        pytest.param({"authorization": "bearer tg_1"}, "tg_1", id="the scheme ignores case"),
        pytest.param({"x-api-key": "tg_1"}, "tg_1", id="x-api-key"),
        pytest.param({"authorization": "Bearer tg_1", "x-api-key": "tg_2"}, "tg_1", id="the bearer token wins"),
        pytest.param({"authorization": "Basic abc", "x-api-key": "tg_2"}, "tg_2", id="other schemes are no token"),
    ],
)
def test_a_key_is_taken_from_the_header_that_holds_it(headers: dict[str, str], key: str) -> None:
    assert key_from_headers(headers) == key


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer "}, {"authorization": "tg_1"}, {"x-api-key": ""}])
def test_a_call_without_a_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidApiKeyError):
        key_from_headers(headers)


def test_a_key_is_stored_as_its_sha_256() -> None:
    # What sha256sum prints for the same text.
    assert hash_key("tg_1").hex() == "704343491b7de8998d6483c98faa5bfed02aa0b165bd56eb2d9dec563644ffe6"


@pytest.mark.parametrize(
    ("caller", "scope"),
    [(OPERATOR, Scope.OPERATOR), (OPERATOR, Scope.PROJECT), (ORGANIZATION, Scope.PROJECT), (PROJECT, Scope.PROJECT)],
)
def test_a_wide_key_may_do_what_a_narrow_one_may(caller: Caller, scope: Scope) -> None:
    caller.require(scope, writes=True)


@pytest.mark.parametrize(
    ("caller", "scope"),
    [(OPERATOR, Scope.SERVICE), (ORGANIZATION, Scope.OPERATOR), (PROJECT, Scope.ORGANIZATION)],
)
def test_a_narrow_key_may_not_do_what_needs_a_wider_one(caller: Caller, scope: Scope) -> None:
    with pytest.raises(ForbiddenError, match="This needs a key of scope"):
        caller.require(scope, writes=False)


def test_a_read_only_key_reads_and_writes_nothing() -> None:
    caller = Caller(scope=Scope.PROJECT, organization_id="org-1", project_id="web", read_only=True)

    caller.require(Scope.PROJECT, writes=False)
    with pytest.raises(ReadOnlyKeyError):
        caller.require(Scope.PROJECT, writes=True)


def test_an_operator_sees_all_organizations_or_the_one_named() -> None:
    assert OPERATOR.organization("") is None
    assert OPERATOR.organization("org-2") == "org-2"
    with pytest.raises(InvalidRequestError, match="organization_id is needed"):
        OPERATOR.one_organization("")


def test_everybody_else_sees_their_own_organization_only() -> None:
    assert ORGANIZATION.organization("") == "org-1"
    assert ORGANIZATION.organization("org-1") == "org-1"
    with pytest.raises(ForbiddenError):
        ORGANIZATION.organization("org-2")


def test_a_project_key_sees_its_own_project_only() -> None:
    assert PROJECT.project("") == "web"
    assert ORGANIZATION.project("") is None
    with pytest.raises(ForbiddenError):
        PROJECT.project("app")
