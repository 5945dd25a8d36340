"""Calls and prices that show only what matters to a test."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.common.money import usd_from_pico
from services.ledger.pricing import Funding, Outcome, PricedCall, Prices, Rates, Unit, Usage, price_call

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)  # a Monday
PER_MILLION = Decimal("0.000001")


def per_million(**prices: str) -> Rates:
    """Rates by unit name without `_TOKEN`, in USD per million."""
    return Rates({Unit[f"{name.upper()}_TOKEN"]: Decimal(price) * PER_MILLION for name, price in prices.items()})


ORDINARY = Prices(base=per_million(input="2.50", cached_input="1.25", output="10.00"))


def a_call(usage: Usage | None = None, prices: Prices | None = ORDINARY, **changes: Any) -> PricedCall:
    """A successful call on credits, without a discount, at noon of a Monday."""
    circumstances: dict[str, Any] = {
        "outcome": Outcome.SUCCESS,
        "funding": Funding.CREDITS,
        "cache_hit": False,
        "payload_retained": False,
        "service_tier": "",
        "start_time": NOON,
        "discount": Decimal(0),
    }
    return price_call(usage, prices=prices, **(circumstances | changes))


def quantities(call: PricedCall) -> list[tuple[str, int, str]]:
    """Lines as (kind, quantity, USD per million)."""
    return [(line.line.name, line.quantity, f"{(line.unit_price / PER_MILLION).normalize():f}") for line in call.lines]


def costs(call: PricedCall) -> dict[str, str]:
    return {line.line.name: usd_from_pico(line.cost_pico) for line in call.lines}


FLAT = Prices(
    base=Rates({Unit.REQUEST: Decimal("0.01"), Unit.WEB_SEARCH: Decimal("0.02"), Unit.REJECTION: Decimal("0.03")})
)
CACHED = Usage(input_tokens=1000, cached_input_tokens=600, output_tokens=200)
