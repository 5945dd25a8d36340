import pytest

from services.common.settings import Environment, SettingError


def test_a_missing_setting_stops_the_start_by_name() -> None:
    with pytest.raises(SettingError, match="^TOLLGATE_DATABASE_URL is not set$"):
        Environment({}).text("TOLLGATE_DATABASE_URL")


def test_an_empty_setting_counts_as_missing() -> None:
    assert Environment({"NAME": ""}).text("NAME", "default") == "default"


@pytest.mark.parametrize("value", ["8080", "localhost", "localhost:", "localhost:0", "localhost:65536", "a b:80"])
def test_an_address_needs_a_host_and_a_port(value: str) -> None:
    with pytest.raises(SettingError, match="ADDRESS must be host:port"):
        Environment({"ADDRESS": value}).address("ADDRESS")


@pytest.mark.parametrize("value", ["0", "11", "-1", "1.5", "many", "١"])
def test_a_number_outside_its_range_is_named_with_its_range(value: str) -> None:
    with pytest.raises(SettingError, match="WORKERS must be a whole number from 1 to 10"):
        Environment({"WORKERS": value}).integer("WORKERS", 1, least=1, most=10)


def test_a_flag_is_true_or_false_and_nothing_else() -> None:
    assert Environment({"FLAG": "true"}).flag("FLAG")
    with pytest.raises(SettingError, match="'true' or 'false'"):
        Environment({"FLAG": "yes"}).flag("FLAG")
