"""Members that bodies of every format have, read strictly."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from services.common.errors import InvalidRequestError

MODEL_LENGTH_MAX = 256
# Nothing longer is looked through for names that occur twice.
LOOKED_THROUGH_BYTES_MAX = 64 * 1024
PROJECT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_Kind = TypeVar("_Kind")


def parse_members(body: bytes) -> dict[str, Any]:
    """Raises InvalidRequestError when the body is no JSON object."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError("the body", f"is not valid JSON: {error.msg}") from error
    if not isinstance(members, dict):
        raise InvalidRequestError("the body", "must be a JSON object")
    return members


def write_members(members: Mapping[str, Any]) -> bytes:
    """Raises InvalidRequestError when they are nested too deeply to be written."""
    try:
        return orjson.dumps(members)
    except TypeError as error:
        raise InvalidRequestError("the body", "must not be nested deeper than 250 levels") from error


def is_read_alike(body: bytes, written: bytes) -> bool:
    """Whether everybody reads in a body what we do. `written` is the body as we would write it.

    JSON lets a name occur twice in an object; we take the last, others may take the first. False for a body that is
    too long to be looked through, unless it is written as the official SDKs write.
    """
    if body == written:
        return True
    if len(body) > LOOKED_THROUGH_BYTES_MAX:
        return False
    try:
        json.loads(body, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return False
    return True


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice")
    return members


def optional_member(members: Mapping[str, Any], name: str, kind: type[_Kind], default: _Kind) -> _Kind:
    """A member that may be absent or null. Raises InvalidRequestError when it is of another kind."""
    value = members.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequestError(name, f"must be a JSON {_JSON_NAMES[kind]}")
    return value


def model_of(members: Mapping[str, Any]) -> str:
    """Raises InvalidRequestError."""
    model = members.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_LENGTH_MAX:
        raise InvalidRequestError("model", f"must be a text of 1 to {MODEL_LENGTH_MAX} characters")
    return model


def project_id_of(members: Mapping[str, Any]) -> str:
    """The project that the body names; empty when it names none. Raises InvalidRequestError."""
    project_id = optional_member(members, "project_id", str, "")
    if "project_id" in members and not PROJECT_ID.fullmatch(project_id):
        raise InvalidRequestError("project_id", "must be 1 to 64 letters, digits or ._:-")
    return project_id


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list; none when it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


_JSON_NAMES: Mapping[type, str] = {dict: "object", bool: "boolean", str: "string", int: "whole number", list: "list"}
