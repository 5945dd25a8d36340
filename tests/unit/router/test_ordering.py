"""In which order the providers of a model are tried."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from services.router.errors import ModelNotFoundError
from services.router.routing.ordering import Order, Preference, in_order
from services.router.routing.routing import AUTO, Candidate, RoutingTable, Standing

OPENAI, AZURE, GROQ = (Candidate(provider, "gpt-4o", "gpt-4o") for provider in ("openai", "azure", "groq"))
ALL = (OPENAI, AZURE, GROQ)
WELL = Standing()


def providers(
    candidates: tuple[Candidate, ...] = ALL,
    preference: Preference = Preference(),  # noqa: B008 frozen
    standings: Mapping[str, Standing] = {},
    prices: Mapping[str, float] = {},
) -> list[str]:
    ordered = in_order(
        candidates,
        preference,
        standing_of=lambda candidate: standings.get(candidate.provider, WELL),
        price_of=lambda candidate: prices.get(candidate.provider),
        draw=random.Random(7).random,
    )
    return [candidate.provider for candidate in ordered]


def test_unless_something_is_said_the_order_is_that_of_configuration() -> None:
    assert providers() == ["openai", "azure", "groq"]


def test_what_a_project_prefers_is_tried_first_in_its_order() -> None:
    assert providers(preference=Preference(providers=("groq", "nobody", "azure"))) == ["groq", "azure", "openai"]


def test_what_cools_down_is_tried_last_even_when_preferred() -> None:
    preference = Preference(providers=("groq",))

    assert providers(preference=preference, standings={"groq": Standing(is_cooling=True)})[-1] == "groq"


def test_preference_comes_before_health_and_health_before_price() -> None:
    assert providers(
        preference=Preference(order=Order.PRICE, providers=("azure",)),
        standings={"azure": Standing(is_degraded=True), "openai": Standing(is_degraded=True)},
        prices={"openai": 1.0, "azure": 3.0, "groq": 2.0},
    ) == ["azure", "groq", "openai"]


def test_by_price_the_cheapest_is_first_and_an_unknown_price_last() -> None:
    by_price = Preference(order=Order.PRICE)

    assert providers(preference=by_price, prices={"azure": 2.0, "groq": 1.0}) == ["groq", "azure", "openai"]


def test_by_latency_the_fastest_is_first_after_those_nobody_knows() -> None:
    standings = {"openai": Standing(latency_seconds=0.9), "azure": Standing(latency_seconds=0.3)}

    assert providers(preference=Preference(order=Order.LATENCY), standings=standings) == ["groq", "azure", "openai"]


def test_latencies_that_hardly_differ_are_equal() -> None:
    standings = {
        "openai": Standing(latency_seconds=0.305),
        "azure": Standing(latency_seconds=0.3),
        "groq": Standing(latency_seconds=0.1),
    }

    assert providers(preference=Preference(order=Order.LATENCY), standings=standings) == ["groq", "openai", "azure"]


def test_among_equals_calls_are_shared_by_weight() -> None:
    weighted = (Candidate("openai", "m", "m", weight=3), Candidate("azure", "m", "m", weight=1))
    draw = random.Random(7).random
    first = Counter(
        in_order(weighted, Preference(), standing_of=lambda _: WELL, price_of=lambda _: None, draw=draw)[0].provider
        for _ in range(4_000)
    )

    assert first["openai"] / 4_000 == pytest.approx(0.75, abs=0.03)


def test_a_weight_of_zero_is_only_for_emergencies() -> None:
    weighted = (Candidate("openai", "m", "m", weight=0), Candidate("azure", "m", "m"))

    assert providers(weighted) == ["azure", "openai"]


def test_auto_chooses_among_the_configured_models_of_all_providers() -> None:
    small = Candidate("openai", "gpt-4o-mini", "gpt-4o-mini")
    table = RoutingTable([OPENAI, AZURE, small], auto_models=["gpt-4o-mini", "gpt-4o"])

    assert table.candidates(AUTO) == (small, OPENAI, AZURE)


def test_auto_is_a_model_only_where_it_is_configured() -> None:
    with pytest.raises(ModelNotFoundError):
        RoutingTable([OPENAI]).candidates(AUTO)
    with pytest.raises(ModelNotFoundError):
        RoutingTable([OPENAI], auto_models=["gpt-nothing"])
