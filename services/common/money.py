"""Money as whole pico-USD in an `int`; decimal strings on the wire. No float before the last step of a REST answer."""

import re
from decimal import Decimal

PICO_PER_USD = 10**12
DECIMALS = 12
_AMOUNT = re.compile(r"(\d{1,18})(?:\.(\d{1,12})0*)?", re.ASCII)


def usd_from_pico(pico: int) -> str:
    """The exact amount in USD, without trailing zeros: 4_500_000_000 is "0.0045"."""
    sign = "-" if pico < 0 else ""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:012d}".rstrip("0")


def pico_from_usd(text: str) -> int:
    """Parses an amount that is not negative. Raises ValueError for anything but up to 18 digits and 12 decimals."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a decimal number of USD with at most {DECIMALS} decimals, got {text!r}")
    whole, fraction = match.groups()
    return int(whole) * PICO_PER_USD + int((fraction or "").ljust(DECIMALS, "0"))


def nearest_double(pico: int | Decimal) -> float:
    """The double nearest to the exact amount in USD; division of integers rounds correctly."""
    return int(pico) / PICO_PER_USD
