"""What becomes of the package's prices."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from services.ledger.prices.catalogue import SOURCE, canonical_model, new_versions, read_catalogue, versions_of
from services.ledger.prices.price_book import PriceVersion
from services.ledger.pricing import Prices, Rates, ServiceTier, Unit, Window
from services.ledger.pricing import Tier as OurTier

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
AUGUST = datetime(2026, 8, 1, tzinfo=UTC)
MILLION = 10**6


def a_model(
    *prices: ConditionalPrice, variants: list[PriceVariant] | None = None, **standard: Decimal | TieredPrices
) -> ModelInfo:
    return ModelInfo(
        id="one",
        match=ClauseEquals("one"),
        prices=list(prices) or ModelPrice(**standard),
        price_variants=variants,
    )


def from_june(**prices: Decimal) -> ConditionalPrice:
    return ConditionalPrice(StartDateConstraint(date(2026, 6, 1)), prices=ModelPrice(**prices))


def always(**prices: Decimal) -> ConditionalPrice:
    return ConditionalPrice(prices=ModelPrice(**prices))


def rates(**by_unit: int) -> Rates:
    """Rates by unit, in USD per million."""
    return Rates({Unit[name]: Decimal(price) / MILLION for name, price in by_unit.items()})


def prices_of(model: ModelInfo) -> Prices:
    (version,) = versions_of("acme", model)[0]
    return version.prices


def test_the_whole_package_is_read_and_what_is_left_out_is_listed() -> None:
    catalogue = read_catalogue()

    assert len(catalogue.versions) > 2000
    assert {version.source for version in catalogue.versions} == {SOURCE}
    left_out = {(each.provider, each.model): each.what for each in catalogue.not_carried}
    assert left_out["openai", "whisper-1"].startswith("everything: prices are for audio_hours")


def test_what_the_package_does_not_date_has_always_been_so() -> None:
    ((version,), _) = versions_of("acme", a_model(input_mtok=Decimal("2.5")))

    assert (version.provider, version.model, version.valid_from) == ("acme", "one", EPOCH)
    assert version.prices == Prices(base=Rates({Unit.INPUT_TOKEN: Decimal("0.0000025")}))


def test_a_dated_price_is_a_version_from_midnight_utc_on() -> None:
    versions, _ = versions_of("acme", a_model(always(input_mtok=Decimal(1)), from_june(input_mtok=Decimal(2))))

    assert [(version.valid_from, version.prices.base) for version in versions] == [
        (EPOCH, rates(INPUT_TOKEN=1)),
        (JUNE, rates(INPUT_TOKEN=2)),
    ]


def test_where_the_package_begins_a_tier_above_a_number_ours_before_it_ends_at_that_number() -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=200, price=Decimal(2)), Tier(start=500, price=Decimal(3))])

    prices = prices_of(a_model(input_mtok=tiered, output_mtok=Decimal(9)))

    assert prices.base == rates(INPUT_TOKEN=1, OUTPUT_TOKEN=9)
    assert prices.tiers == (
        OurTier(200, Rates()),
        OurTier(500, rates(INPUT_TOKEN=2)),
        OurTier(None, rates(INPUT_TOKEN=3)),
    )


def test_a_time_of_day_becomes_a_window() -> None:
    night = TimeOfDateConstraint(time(16, 30, tzinfo=UTC), time(0, 30, tzinfo=UTC))
    evening = TimeOfDateConstraint(time(20), time(0))

    prices = prices_of(
        a_model(
            always(input_mtok=Decimal(3)),
            ConditionalPrice(night, prices=ModelPrice(input_mtok=Decimal(2))),
            ConditionalPrice(evening, prices=ModelPrice(input_mtok=Decimal(1))),
        )
    )

    # In the package the last that holds wins, with us the first.
    assert prices.windows == (
        Window(start_minute=20 * 60, end_minute=24 * 60, rates=rates(INPUT_TOKEN=1)),
        Window(start_minute=16 * 60 + 30, end_minute=30, rates=rates(INPUT_TOKEN=2)),
    )


def test_prices_for_batches_and_service_tiers_become_service_tiers_from_their_dates_on() -> None:
    model = a_model(
        input_mtok=Decimal(4),
        variants=[
            PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=Decimal(2))),
            PriceVariant(
                {"service_tier": "flex"}, ModelPrice(input_mtok=Decimal(3)), StartDateConstraint(date(2026, 6, 1))
            ),
        ],
    )

    versions, _ = versions_of("acme", model)

    batch = ServiceTier(name="batch", rates=rates(INPUT_TOKEN=2))
    flex = ServiceTier(name="flex", rates=rates(INPUT_TOKEN=3))
    assert [(version.valid_from, version.prices.service_tiers) for version in versions] == [
        (EPOCH, (batch,)),
        (JUNE, (batch, flex)),
    ]


def test_of_two_prices_for_one_service_tier_the_first_wins_price_by_price() -> None:
    first = PriceVariant({"service_tier": "flex"}, ModelPrice(input_mtok=Decimal(2)))
    second = PriceVariant({"service_tier": "flex"}, ModelPrice(input_mtok=Decimal(9), output_mtok=Decimal(3)))

    prices = prices_of(a_model(input_mtok=Decimal(4), output_mtok=Decimal(8), variants=[first, second]))

    assert prices.service_tiers == (ServiceTier(name="flex", rates=rates(INPUT_TOKEN=2, OUTPUT_TOKEN=3)),)


def test_circumstances_that_a_record_does_not_tell_are_listed_and_left_out() -> None:
    fast = PriceVariant({"speed": "fast"}, ModelPrice(input_mtok=Decimal(8)))

    versions, left_out = versions_of("acme", a_model(input_mtok=Decimal(4), variants=[fast]))

    assert versions[0].prices.service_tiers == ()
    assert left_out == ["prices for {'speed': 'fast'}"]


def test_a_model_without_any_price_is_free() -> None:
    assert prices_of(a_model()).base == rates(INPUT_TOKEN=0, OUTPUT_TOKEN=0)


def test_a_model_priced_only_by_what_no_usage_counts_is_not_priced_at_all() -> None:
    assert versions_of("acme", a_model(audio_hours=Decimal(1))) == (
        [],
        ["the price audio_hours", "everything: prices are for audio_hours only"],
    )


def test_traces_of_binary_fractions_are_cut_at_the_last_decimal_we_keep_and_listed() -> None:
    versions, left_out = versions_of("acme", a_model(input_mtok=Decimal("0.18000000000000002")))

    assert versions[0].prices.base.by_unit[Unit.INPUT_TOKEN] == Decimal("0.00000018")
    assert left_out == ["decimals of input_mtok after the 18th: 0.18000000000000002"]


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("anthropic", "claude-sonnet-4-5-20250929", ("anthropic", "claude-sonnet-4-5")),
        ("azure", "gpt-4o", ("openai", "gpt-4o")),
        ("openai", "no-such-model", None),
        ("my-openai-proxy", "gpt-4o", None),
    ],
)
def test_other_names_of_a_model_lead_to_it(provider: str, name: str, found: tuple[str, str] | None) -> None:
    assert canonical_model(provider, name) == found


# A newer edition


def a_version(price: int, valid_from: datetime = EPOCH) -> PriceVersion:
    return PriceVersion(0, "acme", "one", valid_from, SOURCE, Prices(base=rates(INPUT_TOKEN=price)))


def test_a_model_that_is_new_gets_all_its_versions() -> None:
    package = [a_version(1), a_version(2, JUNE), a_version(3, AUGUST)]

    assert new_versions(package, [], JULY) == package


def test_what_is_known_already_is_not_added_again() -> None:
    package = [a_version(1), a_version(2, JUNE), a_version(3, AUGUST)]

    assert new_versions(package, package, JULY) == []


def test_a_dated_change_holds_from_its_date_on_though_we_learn_of_it_later() -> None:
    assert new_versions([a_version(1), a_version(2, JUNE)], [a_version(1)], JULY) == [a_version(2, JUNE)]


def test_an_undated_change_holds_from_now_on_and_leaves_the_past_as_it_was_priced() -> None:
    assert new_versions([a_version(2)], [a_version(1)], JULY) == [a_version(2, JULY)]


def test_a_correction_of_the_past_changes_nothing() -> None:
    stored = [a_version(1), a_version(2, JUNE)]

    assert new_versions([a_version(9), a_version(2, JUNE)], stored, JULY) == []


def test_an_announced_change_that_is_taken_back_does_not_come_about() -> None:
    stored = [a_version(1), a_version(2, AUGUST)]

    assert new_versions([a_version(1)], stored, JULY) == [a_version(1, AUGUST)]
