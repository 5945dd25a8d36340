"""How a provider of one format answers calls of an endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from services.router.formats.endpoint import Answer, ModelRequest
from services.router.formats.usage import UsageReading
from tollgate.ledger.v1.usage_pb2 import Usage


@dataclass(slots=True, kw_only=True)
class Target:
    """The model that a call is for, as its provider knows it."""

    upstream_model: str
    # None when not configured.
    output_tokens_max: int | None = None
    # True where the model takes a budget of tokens for its thinking and no effort.
    thinks_by_budget: bool = False
    # True where the call goes out with a key of the caller's organization, and not with the platform's.
    own_key: bool = False


@dataclass(slots=True, kw_only=True)
class UpstreamCall:
    """What to send to a provider."""

    # After its base URL.
    path: str
    # Stands for `{model}` in its base URL.
    upstream_model: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class AnswerStream(Protocol):
    """One streamed answer on its way through. Lives as long as the stream."""

    def feed(self, chunk: bytes) -> bytes:
        """Takes bytes as they came, split anywhere. Returns what the client may have now."""

    def end(self) -> bytes:
        """What may still go to the client before the end marker, when no more bytes come."""

    @property
    def held(self) -> bytes:
        """The end marker and whatever came after it: to be sent last. Empty while there was none."""

    @property
    def is_complete(self) -> bool:
        """True when the answer came to its end."""

    @property
    def failed(self) -> bool:
        """True once the provider sent an error where the answer should go on, and it was passed on."""

    @property
    def rejected(self) -> bool:
        """True when the provider's content filter refused in the form of an answer."""

    @property
    def usage(self) -> UsageReading | None:
        """What was reported last; None while nothing was."""

    @property
    def service_tier(self) -> str:
        """The tier that was served, where it was told."""

    @property
    def counted(self) -> Usage:
        """What an estimate knows for sure, because it can be counted."""

    @property
    def output_text(self) -> str:
        """All text of the answer so far. Costs something, so only for when the provider reports no usage."""


class Exchange(Protocol):
    """One endpoint answered by providers of one format. Keeps no state."""

    def call(self, request: ModelRequest, target: Target) -> UpstreamCall:
        """The provider's request. Raises InvalidRequestError for what its format cannot say."""

    def answer(self, request: ModelRequest, body: bytes, created_seconds: int) -> Answer | None:
        """Reads a whole answer that came with a 2xx; None when it is none. Created when, in Unix seconds."""

    def open_stream(self, request: ModelRequest, created_seconds: int) -> AnswerStream:
        """Reads along with an answer that comes as server-sent events."""

    def error(self, body: bytes) -> bytes | None:
        """A provider's error as the client gets it, in the provider's words; None when it is no error body."""


def json_object(body: bytes) -> dict[str, Any]:
    """The object; empty when it is none."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}
