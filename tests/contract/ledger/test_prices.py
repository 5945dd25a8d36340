"""The price book over the wire."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from tests.conftest import Database
from tests.contract.ledger.accounts_server import INSIDE, OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tests.contract.ledger.prices_server import PriceLedger, running_prices
from tollgate.ledger.v1.price_service_pb2 import (
    EndDiscountRequest,
    GetPriceHistoryRequest,
    ListDiscountsRequest,
    ListPricesRequest,
    ListUnpricedRecordsRequest,
    PreviewCostRequest,
    Prices,
    PublishPriceRequest,
    SetDiscountRequest,
)

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

ORDINARY: dict[str, Any] = {
    "unit_prices": [
        {"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "2.50", "per": 1000000},
        {"unit": "PRICE_UNIT_CACHED_INPUT_TOKEN", "price": "1.25", "per": 1000000},
        {"unit": "PRICE_UNIT_OUTPUT_TOKEN", "price": "0.00001"},
    ]
}
USAGE = {"input_tokens": 1000, "cached_input_tokens": 600, "output_tokens": 200}


@pytest.fixture(scope="module")
async def accounts(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


@pytest.fixture(scope="module")
async def ledger(database: Database, accounts: Ledger) -> AsyncIterator[PriceLedger]:
    async with running_prices(database) as running:
        yield running


def at(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def as_dict(message: Any) -> dict[str, Any]:
    """As a REST client sees it."""
    return MessageToDict(message, preserving_proto_field_name=True)


def publication(model: str, valid_from: datetime = MAY, **prices: Any) -> PublishPriceRequest:
    return PublishPriceRequest(
        provider="acme", model=model, valid_from=at(valid_from), prices=ParseDict({**ORDINARY, **prices}, Prices())
    )


async def publish(ledger: PriceLedger, model: str, valid_from: datetime = MAY, **prices: Any) -> Any:
    request = publication(model, valid_from, **prices)
    return (await ledger.prices.PublishPrice(request, metadata=OPERATOR)).version


async def preview(ledger: PriceLedger, **fields: Any) -> dict[str, Any]:
    request = ParseDict(fields, PreviewCostRequest())
    return as_dict(await ledger.prices.PreviewCost(request, metadata=OPERATOR))


async def test_a_published_price_is_used_at_once(ledger: PriceLedger) -> None:
    version = await publish(ledger, "used")

    cost = await preview(ledger, provider="acme", model="used", usage=USAGE, discount="0.20")

    assert cost["version_id"] == version.version_id
    assert (cost["total"], cost["list_cost"], cost["saved"], cost["charged"]) == (
        "0.003",
        "0.00375",
        "0.00075",
        "0.003",
    )


async def test_everything_a_price_can_say_comes_back_as_it_was_said(ledger: PriceLedger) -> None:
    said: dict[str, Any] = {
        "unit_prices": [
            {"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "0.000000000000000002", "per": 1},
            {"unit": "PRICE_UNIT_OUTPUT_IMAGE", "price": "0.04", "per": 1},
            {"unit": "PRICE_UNIT_OUTPUT_IMAGE", "price": "0.08", "per": 1, "size": "1024x1024", "quality": "hd"},
        ],
        "tiers": [
            {"up_to_input_tokens": 200000},
            {"unit_prices": [{"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "0.000004", "per": 1}]},
        ],
        "windows": [
            {
                "start_time": "16:30",
                "end_time": "24:00",
                "weekdays": ["SATURDAY", "SUNDAY"],
                "unit_prices": [{"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "0", "per": 1}],
            }
        ],
        "service_tiers": [{"service_tier": "flex", "multiplier": "0.5"}],
        "tokens_per_input_image": 560,
        "currency": "USD",
    }

    version = await publish(ledger, "whole", **said)

    assert as_dict(version.prices) == said
    history = await ledger.prices.GetPriceHistory(
        GetPriceHistoryRequest(provider="acme", model="whole"), metadata=OPERATOR
    )
    assert list(history.versions) == [version]


async def test_publishing_the_same_again_adds_nothing(ledger: PriceLedger) -> None:
    first = await publish(ledger, "again")
    again = await publish(ledger, "again")

    assert again == first


async def test_a_new_price_leaves_the_old_one_as_it_was(ledger: PriceLedger) -> None:
    old = await publish(ledger, "changed")
    dearer: dict[str, Any] = {"unit_prices": [{"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "1"}]}
    new = await publish(ledger, "changed", JUNE, **dearer)

    before = await preview(
        ledger, provider="acme", model="changed", usage={"input_tokens": 1}, start_time="2026-05-31T23:59:59.999999Z"
    )
    after = await preview(
        ledger, provider="acme", model="changed", usage={"input_tokens": 1}, start_time="2026-06-01T00:00:00Z"
    )

    assert (before["version_id"], before["total"]) == (old.version_id, "0.0000025")
    assert (after["version_id"], after["total"]) == (new.version_id, "1")


async def test_prices_can_be_tried_before_they_are_published(ledger: PriceLedger) -> None:
    cost = await preview(ledger, prices=ORDINARY, usage=USAGE, funding="FUNDING_OWN_KEY", payload_retained=True)

    assert cost["lines"] == [
        line("INPUT", "400", "0.0000025", "0.001"),
        line("CACHED_INPUT", "600", "0.00000125", "0.00075"),
        line("OUTPUT", "200", "0.00001", "0.002"),
        line("DATA_STORAGE", "1200", "0.00000001", "0.000012") | {"charged": True},
    ]
    assert (cost["total"], cost["charged"]) == ("0.003762", "0.000012")
    assert "version_id" not in cost


def line(kind: str, quantity: str, unit_price: str, cost: str) -> dict[str, Any]:
    return {
        "line": kind,
        "quantity": quantity,
        "unit_price": unit_price,
        "discount": "0",
        "cost": cost,
        "list_cost": cost,
    }


async def test_the_cost_of_a_model_without_a_price_is_unknown_and_not_zero(ledger: PriceLedger) -> None:
    cost = await preview(ledger, provider="acme", model="unheard-of", usage=USAGE)

    assert cost == {"saved": "0", "charged": "0", "unpriced": True}


async def test_a_preview_says_that_a_part_was_larger_than_its_whole(ledger: PriceLedger) -> None:
    cost = await preview(ledger, prices=ORDINARY, usage={"input_tokens": 10, "cached_input_tokens": 20})

    assert cost["usage_clamped"] is True
    assert [each["quantity"] for each in cost["lines"]] == ["10"]


async def test_a_preview_records_nothing(ledger: PriceLedger) -> None:
    await preview(ledger, prices=ORDINARY, usage=USAGE)

    async with ledger.engine.connect() as connection:
        for table in ("usage_record", "usage_hour", "journal_entry"):
            assert (await connection.execute(text(f"SELECT count(*) FROM ledger.{table}"))).scalar_one() == 0


async def test_lists_of_prices_come_in_pages_without_gaps_or_repeats(ledger: PriceLedger) -> None:
    models = [f"page-{number}" for number in range(5)]
    for model in models:
        await publish(ledger, model)

    seen: list[str] = []
    token = ""
    while True:
        request = ListPricesRequest(provider="acme", limit="2", page_token=token)
        page = await ledger.prices.ListPrices(request, metadata=OPERATOR)
        assert len(page.versions) <= 2
        seen += [version.model for version in page.versions]
        token = page.next_page_token
        if not token:
            break

    assert seen == sorted(set(seen))
    assert set(models) <= set(seen)


async def test_a_list_of_prices_is_of_a_moment(ledger: PriceLedger) -> None:
    await publish(ledger, "dated", MAY)

    request = ListPricesRequest(model="dated", at=(MAY - timedelta(seconds=1)).isoformat())
    before = await ledger.prices.ListPrices(request, metadata=OPERATOR)
    after = await ledger.prices.ListPrices(ListPricesRequest(model="dated", at=MAY.isoformat()), metadata=OPERATOR)

    assert (len(before.versions), len(after.versions)) == (0, 1)


def unit_price(**fields: Any) -> dict[str, Any]:
    return {"unit_prices": [{"unit": "PRICE_UNIT_INPUT_TOKEN", "price": "1", **fields}]}


@pytest.mark.parametrize(
    ("prices", "field", "problem"),
    [
        (unit_price(price="-1"), "prices.unit_prices[0].price", "at least 0"),
        (unit_price(price="0." + "0" * 29 + "1"), "prices.unit_prices[0].price", "at most 18 decimals"),
        (unit_price(price="1e-6"), "prices.unit_prices[0].price", "must be a decimal number"),
        (unit_price(price=""), "prices.unit_prices[0].price", "must be a decimal number"),
        (unit_price(price="10000000000"), "prices.unit_prices[0].price", "below 10000000000"),
        (unit_price(price="0.0000000000001", per=1000000), "prices.unit_prices[0].price", "at most 18 decimals"),
        (unit_price(per=3), "prices.unit_prices[0].per", "power of ten"),
        (unit_price(unit=99), "prices.unit_prices[0].unit", "known unit"),
        (unit_price(unit=0), "prices.unit_prices[0].unit", "known unit"),
        (unit_price(size="1024x1024"), "prices.unit_prices[0].size", "only for"),
        ({"unit_prices": ORDINARY["unit_prices"][:1] * 2}, "prices.unit_prices[1].unit", "priced twice"),
        ({"unit_prices": []}, "prices.unit_prices", "at least one price"),
        ({"currency": "EUR"}, "prices.currency", "must be USD"),
        ({"tokens_per_input_image": -1}, "prices.tokens_per_input_image", "negative"),
        ({"tiers": [{}, {"up_to_input_tokens": 5}]}, "prices", "only the last tier"),
        ({"tiers": [{"up_to_input_tokens": -5}]}, "prices", "bounds of tiers"),
        ({"tiers": [{}] * 33}, "prices.tiers", "at most 32"),
        ({"windows": [{"start_time": "1:00", "end_time": "2:00"}]}, "prices.windows[0].start_time", "time of day"),
        ({"windows": [{"start_time": "01:00", "end_time": "24:01"}]}, "prices.windows[0].end_time", "time of day"),
        ({"windows": [{"start_time": "01:00", "end_time": "01:00"}]}, "prices.windows[0]", "holds never"),
        (
            {"windows": [{"start_time": "01:00", "end_time": "02:00", "weekdays": [9]}]},
            "prices.windows[0]",
            "weekdays from 1 to 7",
        ),
        ({"service_tiers": [{"multiplier": "2"}]}, "prices.service_tiers[0].service_tier", "1 to 64 characters"),
        (
            {"service_tiers": [{"service_tier": "flex", "multiplier": "x"}]},
            "prices.service_tiers[0].multiplier",
            "must be a decimal number",
        ),
        (
            {
                "service_tiers": [
                    {"service_tier": "flex", "unit_prices": [{"unit": "PRICE_UNIT_REQUEST", "price": "1"}]}
                ]
            },
            "prices.service_tiers[0]",
            "tokens only",
        ),
    ],
)
async def test_a_price_that_cannot_be_is_refused_by_the_name_of_its_field(
    ledger: PriceLedger, prices: dict[str, Any], field: str, problem: str
) -> None:
    refusal = await refusal_of(ledger.prices.PublishPrice(publication("refused", **prices), metadata=OPERATOR))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)
    assert problem in refusal.message


@pytest.mark.parametrize("missing", ["provider", "model", "valid_from", "prices"])
async def test_a_publication_without_a_needed_field_is_refused(ledger: PriceLedger, missing: str) -> None:
    request = publication("refused")
    request.ClearField(missing)  # type: ignore[arg-type]

    refusal = await refusal_of(ledger.prices.PublishPrice(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": missing})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"usage": {"input_tokens": -1}}, "usage.input_tokens"),
        ({"usage": {"output_tokens": 10**12 + 1}}, "usage.output_tokens"),
        ({"usage": {"output_images": [{"count": 0}]}}, "usage.output_images[0].count"),
        ({"usage": {"input_tokens": 10**12}, "prices": unit_price(price="1")}, "usage"),
        ({"discount": "1.1"}, "discount"),
        ({"discount": "-0.1"}, "discount"),
        ({"outcome": 99}, "outcome"),
        ({"funding": 99}, "funding"),
        ({"provider": "acme", "model": "used"}, "prices"),
    ],
)
async def test_a_preview_that_cannot_be_is_refused_by_the_name_of_its_field(
    ledger: PriceLedger, fields: dict[str, Any], field: str
) -> None:
    request = ParseDict({"prices": ORDINARY, **fields}, PreviewCostRequest())

    refusal = await refusal_of(ledger.prices.PreviewCost(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)


async def test_a_history_of_nothing_is_not_found(ledger: PriceLedger) -> None:
    request = GetPriceHistoryRequest(provider="acme", model="unheard-of")

    refusal = await refusal_of(ledger.prices.GetPriceHistory(request, metadata=OPERATOR))

    assert (refusal.code, refusal.message) == (MISSING, "There is no price of acme/unheard-of.")


async def test_a_discount_holds_until_it_is_ended(ledger: PriceLedger, accounts: Ledger) -> None:
    organization_id = await accounts.organization()
    request = SetDiscountRequest(
        organization_id=organization_id, provider="acme", fraction="0.25", valid_from=at(datetime.now(UTC))
    )

    given = (await ledger.prices.SetDiscount(request, metadata=OPERATOR)).discount
    repeated = (await ledger.prices.SetDiscount(request, metadata=OPERATOR)).discount
    ended = (
        await ledger.prices.EndDiscount(EndDiscountRequest(discount_id=given.discount_id), metadata=OPERATOR)
    ).discount
    again = (
        await ledger.prices.EndDiscount(EndDiscountRequest(discount_id=given.discount_id), metadata=OPERATOR)
    ).discount

    assert (given.fraction, given.HasField("valid_to")) == ("0.25", False)
    assert repeated == given
    assert ended.valid_to.ToDatetime(UTC) <= datetime.now(UTC)
    assert again == ended
    listed = await ledger.prices.ListDiscounts(ListDiscountsRequest(organization_id=organization_id), metadata=OPERATOR)
    assert list(listed.discounts) == [ended]


async def test_discounts_are_listed_newest_first(ledger: PriceLedger) -> None:
    for fraction in ("0.1", "0.2", "0.3"):
        await ledger.prices.SetDiscount(SetDiscountRequest(model="listed", fraction=fraction), metadata=OPERATOR)

    first = await ledger.prices.ListDiscounts(ListDiscountsRequest(limit="2"), metadata=OPERATOR)
    request = ListDiscountsRequest(limit="1", page_token="")
    second = await ledger.prices.ListDiscounts(
        ListDiscountsRequest(limit="1", page_token=first.next_page_token), metadata=OPERATOR
    )
    one = await ledger.prices.ListDiscounts(request, metadata=OPERATOR)

    assert [discount.fraction for discount in (*first.discounts, *second.discounts)] == ["0.3", "0.2", "0.1"]
    assert [discount.fraction for discount in one.discounts] == ["0.3"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"fraction": "1.000000000000000001"}, "fraction"),
        ({"fraction": "-0.1"}, "fraction"),
        ({"fraction": ""}, "fraction"),
        ({"fraction": "0.1", "provider": "no spaces"}, "provider"),
        ({"fraction": "0.1", "organization_id": "nobody", "provider": "acme"}, "organization_id"),
        ({"fraction": "0.1", "organization_id": "0199a000-0000-7000-8000-00000000dead"}, "provider"),
        ({"fraction": "0.1", "valid_from": at(JUNE), "valid_to": at(JUNE)}, "valid_to"),
    ],
)
async def test_a_discount_that_cannot_be_is_refused_by_the_name_of_its_field(
    ledger: PriceLedger, fields: dict[str, Any], field: str
) -> None:
    refusal = await refusal_of(ledger.prices.SetDiscount(SetDiscountRequest(**fields), metadata=OPERATOR))

    assert (refusal.code, refusal.metadata["field"]) == (INVALID, field)


async def test_a_discount_for_nobody_and_the_end_of_none_are_not_found(ledger: PriceLedger) -> None:
    unknown = SetDiscountRequest(
        organization_id="0199a000-0000-7000-8000-00000000dead", provider="acme", fraction="0.1"
    )

    assert (await refusal_of(ledger.prices.SetDiscount(unknown, metadata=OPERATOR))).code == MISSING
    for discount_id in ("999999", "nonsense", "9" * 30):
        request = EndDiscountRequest(discount_id=discount_id)
        assert (await refusal_of(ledger.prices.EndDiscount(request, metadata=OPERATOR))).code == MISSING


async def test_a_discount_cannot_end_in_the_past(ledger: PriceLedger) -> None:
    given = (
        await ledger.prices.SetDiscount(SetDiscountRequest(model="kept", fraction="0.1"), metadata=OPERATOR)
    ).discount

    request = EndDiscountRequest(discount_id=given.discount_id, valid_to=at(MAY - timedelta(days=365)))
    refusal = await refusal_of(ledger.prices.EndDiscount(request, metadata=OPERATOR))

    assert (refusal.code, refusal.metadata) == (INVALID, {"field": "valid_to"})


async def test_only_operators_change_prices_and_anybody_with_a_key_may_try_them(
    ledger: PriceLedger, accounts: Ledger
) -> None:
    mine = bearer((await accounts.key(await accounts.organization())).secret)

    for call, request in (
        ("PublishPrice", publication("mine")),
        ("SetDiscount", SetDiscountRequest(fraction="1")),
        ("ListDiscounts", ListDiscountsRequest()),
        ("EndDiscount", EndDiscountRequest(discount_id="1")),
        ("ListUnpricedRecords", ListUnpricedRecordsRequest()),
    ):
        refusal = await refusal_of(getattr(ledger.prices, call)(request, metadata=mine))
        assert refusal.code == grpc.StatusCode.PERMISSION_DENIED, call
    trial = ParseDict({"prices": ORDINARY, "usage": USAGE}, PreviewCostRequest())
    assert (await ledger.prices.PreviewCost(trial, metadata=mine)).total == "0.00375"


async def test_who_changed_prices_is_in_the_audit_log(ledger: PriceLedger) -> None:
    version = await publish(ledger, "audited")

    async with ledger.engine.connect() as connection:
        found = await connection.execute(
            text("SELECT details FROM ledger.operator_audit_log WHERE action = 'price.publish' AND subject = :subject"),
            {"subject": version.version_id},
        )
        details = found.scalar_one()
    assert details == {"provider": "acme", "model": "audited", "valid_from": "2026-05-01T00:00:00Z"}


async def test_a_service_may_look_up_prices_too(ledger: PriceLedger) -> None:
    page = await ledger.prices.ListPrices(ListPricesRequest(provider="nobody"), metadata=INSIDE)

    assert list(page.versions) == []
