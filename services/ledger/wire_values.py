"""Decimals and names on the wire ↔ values. Whatever is wrong is named by the field it is in."""

import re
from decimal import Context, Decimal

from services.common.errors import InvalidRequestError
from services.ledger.pricing import PRICE_LIMIT, check_decimal

_DECIMAL = re.compile(r"-?\d{1,40}(\.\d{1,40})?", re.ASCII)
# Wide enough for every text that `_DECIMAL` admits, so that nothing is rounded before it is checked.
_EXACT = Context(prec=100)
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


def decimal_from_text(field: str, text: str, *, below: Decimal = PRICE_LIMIT, divisor_exponent: int = 0) -> Decimal:
    """An amount that is not negative and exact in 18 decimals, after division by a power of ten."""
    if not _DECIMAL.fullmatch(text):
        raise InvalidRequestError(field, f"must be a decimal number such as 0.0000025, got {text[:50]!r}")
    value = Decimal(text).scaleb(-divisor_exponent, _EXACT)
    try:
        check_decimal(value, below=below)
    except ValueError as error:
        raise InvalidRequestError(field, str(error)) from None
    return value


def fraction_from_text(field: str, text: str) -> Decimal:
    """A fraction from 0 to 1, both included."""
    value = decimal_from_text(field, text)
    if value > 1:
        raise InvalidRequestError(field, f"must be from 0 to 1, got {text}")
    return value


def decimal_to_text(value: Decimal) -> str:
    """The exact number without an exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def require_name(field: str, text: str) -> None:
    """Raises unless the text can be the name of a provider."""
    if not _NAME.fullmatch(text):
        raise InvalidRequestError(field, f"must be 1 to 64 letters, digits or ._:-, got {text[:64]!r}")
