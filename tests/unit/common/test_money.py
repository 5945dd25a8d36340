import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.money import nearest_double, pico_from_usd, usd_from_pico


@pytest.mark.parametrize(
    ("pico", "usd"),
    [
        pytest.param(0, "0", id="nothing"),
        pytest.param(1, "0.000000000001", id="one pico-dollar"),
        pytest.param(4_500_000_000, "0.0045", id="no trailing zeros"),
        pytest.param(10 * 10**12, "10", id="whole dollars keep their zeros"),
        pytest.param(-1_500_000_000_000, "-1.5", id="owed"),
    ],
)
def test_an_amount_is_written_exactly(pico: int, usd: str) -> None:
    assert usd_from_pico(pico) == usd


@given(st.integers(min_value=0, max_value=10**30 - 1))
def test_an_amount_survives_being_written_and_read(pico: int) -> None:
    assert pico_from_usd(usd_from_pico(pico)) == pico


def test_zeros_behind_an_amount_change_nothing() -> None:
    assert pico_from_usd("0.0000184500") == pico_from_usd("0.00001845")


@pytest.mark.parametrize(
    "text", ["", "-1", "1,5", "1.", ".5", "1e3", " 1", "NaN", "0.0000000000001", "١", "1" * 19, "1.5\n"]
)
def test_anything_but_a_plain_decimal_of_twelve_places_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a decimal number of USD"):
        pico_from_usd(text)


def test_a_json_number_is_the_double_nearest_to_the_exact_amount() -> None:
    assert nearest_double(15_000_000) == 0.000015
