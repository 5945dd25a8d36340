"""A page token leads on where the page ended, for the filter it was made with, and nowhere else."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError
from services.reporting.page_token import id_from_page_token, page_token_for
from services.reporting.request_filter import RequestFilter, request_filter_from
from services.reporting.view import View
from tollgate.reporting.v1.request_service_pb2 import ListRequestsRequest

VIEW = View(organization_id=uuid4(), project_id=None, api_key_id=None)


def a_filter(view: View = VIEW, *, model: str = "", status: str = "") -> RequestFilter:
    return request_filter_from(replace(view, model=model or None), ListRequestsRequest(status=status), {})


@given(st.uuids())
def test_a_token_names_the_last_call_of_its_page(last_id: UUID) -> None:
    assert id_from_page_token(page_token_for(last_id, a_filter()), a_filter()) == last_id


def test_no_token_begins_at_the_beginning() -> None:
    assert id_from_page_token("", a_filter()) is None


@pytest.mark.parametrize(
    "other",
    [
        a_filter(model="gpt-4o"),
        a_filter(status="ok"),
        a_filter(status="error"),
        a_filter(status="200"),
        a_filter(View(organization_id=uuid4(), project_id=None, api_key_id=None)),
        a_filter(View(organization_id=VIEW.organization_id, project_id="web", api_key_id=None)),
    ],
)
def test_a_token_is_refused_with_another_filter(other: RequestFilter) -> None:
    token = page_token_for(uuid4(), a_filter())

    with pytest.raises(InvalidRequestError, match="page_token"):
        id_from_page_token(token, other)


@given(st.text(min_size=1))
def test_what_was_not_made_here_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="page_token"):
        id_from_page_token(text, a_filter())
