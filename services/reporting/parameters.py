"""Query parameters are text; here they become values, or an error that names the parameter. Pure. "" is left out."""

import re
from uuid import UUID

from services.common.errors import InvalidRequestError

_WHOLE_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def whole_number(name: str, value: str, *, default: int, least: int, most: int) -> int:
    """A whole number within bounds, in plain digits."""
    if not value:
        return default
    if not _WHOLE_NUMBER.fullmatch(value) or not least <= int(value) <= most:
        raise InvalidRequestError(name, f"must be a whole number from {least} to {most}, got '{value}'.")
    return int(value)


def storable_text(name: str, value: str) -> str:
    """Text as it is, if the database can hold it."""
    if "\0" in value:
        raise InvalidRequestError(name, "must not contain a NUL character.")
    return value


def optional_uuid(name: str, value: str) -> UUID | None:
    """A UUID with its dashes; upper case is as good."""
    if not value:
        return None
    if not _UUID.fullmatch(value):
        raise InvalidRequestError(name, f"must be a UUID, got '{value}'.")
    return UUID(value)
