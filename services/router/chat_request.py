"""A chat completion as the client asked for it, and as it is sent to a provider."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from services.common.errors import InvalidRequestError

MODEL_LENGTH_MAX = 256
_Kind = TypeVar("_Kind")
PROJECT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """The body of `POST /v1/chat/completions`, looked at no further than we need."""

    # As the client named it: plain or pinned.
    model: str
    streamed: bool
    # True when the client itself asked for the usage of a stream.
    usage_wanted: bool
    # From the member `project_id`; empty when there is none.
    project_id: str
    # The whole body, parsed. Not to be changed.
    members: Mapping[str, Any] = field(repr=False)
    body: bytes = field(repr=False)

    def body_for(self, upstream_model: str) -> bytes:
        """The bytes to send: the client's own, unless the model is named otherwise or we have to ask for usage."""
        asks_for_usage = self.streamed and not self.usage_wanted
        if upstream_model == self.model and not self.project_id and not asks_for_usage:
            return self.body

        members = dict(self.members, model=upstream_model)
        members.pop("project_id", None)
        if asks_for_usage:
            members["stream_options"] = {**(members.get("stream_options") or {}), "include_usage": True}
        return orjson.dumps(members)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Raises InvalidRequestError naming the member that is wrong."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError("the body", f"is not valid JSON: {error.msg}") from error
    if not isinstance(members, dict):
        raise InvalidRequestError("the body", "must be a JSON object")
    if not isinstance(members.get("messages"), list) or not members["messages"]:
        raise InvalidRequestError("messages", "must be a list with at least one message")

    options = _member(members, "stream_options", dict, {})
    return ChatRequest(
        model=_model(members),
        streamed=_member(members, "stream", bool, False),
        usage_wanted=options.get("include_usage") is True,
        project_id=_project_id(members),
        members=members,
        body=body,
    )


def _model(members: Mapping[str, Any]) -> str:
    model = members.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_LENGTH_MAX:
        raise InvalidRequestError("model", f"must be a text of 1 to {MODEL_LENGTH_MAX} characters")
    return model


def _project_id(members: Mapping[str, Any]) -> str:
    project_id = _member(members, "project_id", str, "")
    if "project_id" in members and not PROJECT_ID.fullmatch(project_id):
        raise InvalidRequestError("project_id", "must be 1 to 64 letters, digits or ._:-")
    return project_id


def _member(members: Mapping[str, Any], name: str, kind: type[_Kind], default: _Kind) -> _Kind:
    """A member that may be absent or null."""
    value = members.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise InvalidRequestError(name, f"must be a JSON {_JSON_NAMES[kind]}")
    return value


_JSON_NAMES: Mapping[type, str] = {dict: "object", bool: "boolean", str: "string"}
