"""What a call costs. Pure: no clock, no network, no database.

`price_call` turns a usage and the prices in force into cost lines. Unit prices and discounts are exact decimals, each
line is rounded once, half to even, to whole pico-USD, and the charge of a call is the sum of its lines.
"""

from services.ledger.pricing.bounds import PriceBound, joined, price_bound
from services.ledger.pricing.calculation import (
    DEFAULT_STORAGE_PRICE,
    AmountTooLargeError,
    CostLine,
    Funding,
    Line,
    Outcome,
    PricedCall,
    price_call,
)
from services.ledger.pricing.prices import (
    EVERY_DAY,
    MINUTES_PER_DAY,
    PRICE_DECIMALS,
    PRICE_LIMIT,
    ImagePrice,
    Prices,
    Rates,
    ServiceTier,
    Tier,
    Unit,
    Window,
    check_decimal,
)
from services.ledger.pricing.usage import ImageCount, OutputImages, Quantities, Usage, normalise

__all__ = [
    "DEFAULT_STORAGE_PRICE",
    "EVERY_DAY",
    "MINUTES_PER_DAY",
    "PRICE_DECIMALS",
    "PRICE_LIMIT",
    "AmountTooLargeError",
    "CostLine",
    "Funding",
    "ImageCount",
    "ImagePrice",
    "Line",
    "Outcome",
    "OutputImages",
    "PriceBound",
    "PricedCall",
    "Prices",
    "Quantities",
    "Rates",
    "ServiceTier",
    "Tier",
    "Unit",
    "Usage",
    "Window",
    "check_decimal",
    "joined",
    "normalise",
    "price_bound",
    "price_call",
]
