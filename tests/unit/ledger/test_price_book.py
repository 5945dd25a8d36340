"""Which version and which discount hold at a call's start."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.ledger.prices.price_book import Discount, PriceBook, PriceVersion
from services.ledger.pricing import Prices, Rates, Unit

JANUARY, MARCH, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 3, 5))
MOMENT = timedelta(microseconds=1)
ACME = "0199f3a0-0000-7000-8000-000000000001"


def a_version(version_id: int, valid_from: datetime = JANUARY, *, source: str = "operator") -> PriceVersion:
    prices = Prices(base=Rates({Unit.INPUT_TOKEN: Decimal(version_id)}))
    return PriceVersion(version_id, "openai", "gpt-4o", valid_from, source, prices)


def version_id_at(book: PriceBook, moment: datetime, model: str = "gpt-4o") -> int | None:
    version = book.version_at("openai", model, moment)
    return None if version is None else version.version_id


def test_the_version_in_force_is_the_last_that_began_by_then() -> None:
    book = PriceBook([a_version(2, MARCH), a_version(1, JANUARY)], [])

    assert [version_id_at(book, moment) for moment in (JANUARY, MARCH - MOMENT, MARCH, MAY)] == [1, 1, 2, 2]


def test_before_the_first_version_there_is_no_price() -> None:
    assert version_id_at(PriceBook([a_version(1)], []), JANUARY - MOMENT) is None


def test_a_model_that_nobody_priced_has_no_price() -> None:
    book = PriceBook([a_version(1)], [])

    assert book.version_at("openai", "gpt-5o", MAY) is None
    assert book.version_at("azure", "gpt-4o", MAY) is None


def test_of_versions_for_the_same_moment_the_last_published_holds() -> None:
    book = PriceBook([a_version(1), a_version(3), a_version(2)], [])

    assert version_id_at(book, MAY) == 3
    assert [version.version_id for version in book.history("openai", "gpt-4o")] == [1, 2, 3]


def test_the_catalogue_does_not_displace_what_an_operator_published() -> None:
    catalogue = "genai-prices 0.2.3"
    book = PriceBook(
        [a_version(1, source=catalogue), a_version(2, MARCH), a_version(3, MAY, source=catalogue)],
        [],
    )

    assert [version_id_at(book, moment) for moment in (JANUARY, MARCH, MAY)] == [1, 2, 2]


def test_another_name_of_a_model_has_the_prices_of_the_model() -> None:
    book = PriceBook([a_version(1)], [], lambda provider, model: (provider, model.removesuffix("-2024-08-06")))

    assert version_id_at(book, MAY, "gpt-4o-2024-08-06") == 1


def test_a_price_published_for_the_very_name_comes_before_that_of_its_model() -> None:
    dated = replace(a_version(2), model="gpt-4o-2024-08-06")
    book = PriceBook([a_version(1), dated], [], lambda provider, model: (provider, "gpt-4o"))

    assert version_id_at(book, MAY, "gpt-4o-2024-08-06") == 2


def a_discount(
    discount_id: int,
    fraction: str,
    *,
    organization_id: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    valid_from: datetime = JANUARY,
    valid_to: datetime | None = None,
) -> Discount:
    return Discount(
        discount_id=discount_id,
        organization_id=organization_id,
        provider=provider,
        model=model,
        fraction=Decimal(fraction),
        valid_from=valid_from,
        valid_to=valid_to,
    )


def discount_of(*discounts: Discount, at: datetime = MAY) -> Decimal:
    return PriceBook([], discounts).discount_for(ACME, "openai", "gpt-4o", at)


# As the billing rules list them, the first match decides.
LEVELS = [
    a_discount(1, "0.1", organization_id=ACME, provider="openai", model="gpt-4o"),
    a_discount(2, "0.2", organization_id=ACME, provider="openai"),
    a_discount(3, "0.3", organization_id=ACME, model="gpt-4o"),
    a_discount(4, "0.4", provider="openai", model="gpt-4o"),
    a_discount(5, "0.5", provider="openai"),
    a_discount(6, "0.6", model="gpt-4o"),
    a_discount(7, "0.7"),
]


@pytest.mark.parametrize("level", range(7))
def test_the_first_level_with_a_match_decides_and_discounts_never_stack(level: int) -> None:
    assert discount_of(*LEVELS[level:]) == LEVELS[level].fraction


@pytest.mark.parametrize(
    "target",
    [
        {"organization_id": "0199f3a0-0000-7000-8000-000000000002", "provider": "openai"},
        {"provider": "anthropic"},
        {"model": "gpt-4o-mini"},
        {"organization_id": ACME},
    ],
    ids=["another organization", "another provider", "another model", "an organization and nothing else"],
)
def test_a_discount_for_something_else_does_not_match(target: dict[str, str]) -> None:
    assert discount_of(a_discount(1, "0.5", **target)) == 0  # type: ignore[arg-type]


def test_within_a_level_the_newest_wins() -> None:
    assert discount_of(a_discount(2, "0.2"), a_discount(3, "0.3"), a_discount(1, "0.1")) == Decimal("0.3")


def test_an_explicit_zero_is_a_match_and_ends_the_search() -> None:
    assert discount_of(a_discount(1, "0.5"), a_discount(2, "0", model="gpt-4o")) == 0


@pytest.mark.parametrize(
    ("at", "fraction"),
    [(MARCH - MOMENT, "0.1"), (MARCH, "0.2"), (MAY - MOMENT, "0.2"), (MAY, "0.1")],
    ids=["not yet", "from its start", "just before its end", "ended"],
)
def test_a_discount_holds_from_its_start_until_just_before_its_end(at: datetime, fraction: str) -> None:
    discounts = a_discount(1, "0.1"), a_discount(2, "0.2", valid_from=MARCH, valid_to=MAY)

    assert discount_of(*discounts, at=at) == Decimal(fraction)


@pytest.mark.parametrize("fraction", ["-0.1", "1.1"])
def test_a_discount_out_of_range_does_not_match(fraction: str) -> None:
    assert discount_of(a_discount(1, "0.1"), a_discount(2, fraction)) == Decimal("0.1")
