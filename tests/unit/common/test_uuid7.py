from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.common.uuid7 import new_uuid7, parse_uuid7, time_of


def test_a_new_id_carries_the_time_it_was_made() -> None:
    assert abs(time_of(new_uuid7()) - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_time_is_that_of_the_standard_s_example() -> None:
    # RFC 9562, appendix A.6
    assert time_of(UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("af65dddc-6b91-4882-96a8-eaa297c8d288", id="version 4"),
        pytest.param("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", id="upper case"),
        pytest.param("{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}", id="in braces"),
    ],
)
def test_only_a_canonical_version_7_id_is_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"UUID"):
        parse_uuid7(text)
