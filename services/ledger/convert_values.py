"""Choices and times, wire ↔ domain."""

from datetime import UTC, datetime
from enum import IntEnum
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError
from tollgate.access.v1 import access_pb2

Choice = TypeVar("Choice", bound=IntEnum)


def choice(field: str, choices: type[Choice], number: int, *, default: Choice) -> Choice:
    """The choice with this number; zero stands for the default, and numbers of a newer contract are refused."""
    return default if number == 0 else named_choice(field, choices, number)


def named_choice(field: str, choices: type[Choice], number: int) -> Choice:
    """The choice with this number. Raises InvalidRequestError where there is none, as for zero."""
    try:
        return choices(number)
    except ValueError as error:
        raise InvalidRequestError(field, f"has no choice {number}") from error


def scope_to_proto(scope: Scope) -> access_pb2.Scope.ValueType:
    return access_pb2.Scope.Value(f"SCOPE_{scope.name}")


def time_from_proto(field: str, time: Timestamp) -> datetime:
    try:
        return time.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(field, "must be a time from the year 1 to the year 9999") from error


def time_to_proto(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def optional_time_to_proto(time: datetime | None) -> Timestamp | None:
    return None if time is None else time_to_proto(time)
