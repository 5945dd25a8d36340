import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.common.errors import InvalidRequestError
from services.ledger.paging import BY_ID, BY_TIME_AND_NAME, PageRequest, TimeAndName, page_request

IDS = [UUID(int=number) for number in range(5, 0, -1)]
TIME = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)


def asked(*, limit: str = "2", page_token: str = "", filters: tuple[object, ...] = ("keys", None)) -> PageRequest[UUID]:
    return page_request(BY_ID, limit=limit, page_token=page_token, filters=filters)


def itself(row: UUID) -> UUID:
    return row


def test_a_page_goes_on_after_the_last_item_shown() -> None:
    first = asked().page(IDS[:3], itself)

    assert first.items == IDS[:2]
    assert asked(page_token=first.next_page_token).after == IDS[1]


def test_the_last_page_has_no_token_even_when_it_is_full() -> None:
    assert asked().page(IDS[3:], itself).next_page_token == ""
    assert asked().page([], itself).items == []


def test_one_more_row_than_shown_tells_whether_more_follow() -> None:
    assert asked(limit="500").row_count == 501
    assert asked(limit="").limit == 50


@pytest.mark.parametrize("limit", ["0", "501", "-1", "1.5", "ten", " 1", "1e1", "9" * 50])
def test_a_limit_is_a_whole_number_from_1_to_500(limit: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^limit must be a whole number from 1 to 500"):
        asked(limit=limit)


def test_a_token_is_no_good_for_other_filters() -> None:
    token = asked().page(IDS, itself).next_page_token

    with pytest.raises(InvalidRequestError, match=r"^page_token "):
        asked(page_token=token, filters=("keys", "web"))


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "=" * 12, base64.urlsafe_b64encode(bytes(24)).decode()])
def test_a_token_that_we_did_not_make_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^page_token "):
        asked(page_token=token)


def test_a_broken_place_behind_the_right_filters_is_refused_too() -> None:
    digest = base64.urlsafe_b64decode(asked().page(IDS, itself).next_page_token)[:8]

    for place in (b"", b"not an id", b"\xff" * 16):
        with pytest.raises(InvalidRequestError, match=r"^page_token "):
            asked(page_token=base64.urlsafe_b64encode(digest + place).decode())


def test_what_has_a_name_goes_on_after_its_time_and_name() -> None:
    def of_projects(page_token: str = "") -> PageRequest[TimeAndName]:
        return page_request(BY_TIME_AND_NAME, limit="1", page_token=page_token, filters=())

    rows = [TimeAndName(TIME, "web"), TimeAndName(TIME, "lab")]
    token = of_projects().page(rows, lambda row: row).next_page_token

    assert of_projects(token).after == TimeAndName(TIME, "web")


@pytest.mark.parametrize("place", [b"2026-03-01T12:00:00 web", b"web", b"2026-03-01T12:00:00+00:00 nul\0"])
def test_a_time_without_offset_or_a_name_that_cannot_be_is_refused(place: bytes) -> None:
    page = page_request(BY_TIME_AND_NAME, limit="1", page_token="", filters=())
    token = page.page([TimeAndName(TIME, "a"), TimeAndName(TIME, "b")], lambda row: row).next_page_token
    digest = base64.urlsafe_b64decode(token)[:8]

    with pytest.raises(InvalidRequestError, match=r"^page_token "):
        page_request(
            BY_TIME_AND_NAME,
            limit="1",
            page_token=base64.urlsafe_b64encode(digest + place).decode(),
            filters=(),
        )
