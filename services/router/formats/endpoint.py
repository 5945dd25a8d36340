"""What a format that clients speak has to say about itself."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, ClassVar

import orjson

from services.common.errors import InvalidRequestError
from services.router.error_bodies import error_body
from services.router.formats.estimation import Tokenizer
from services.router.formats.event_stream import StreamReader
from services.router.formats.kept_state import kept_member
from services.router.formats.members import (
    is_read_alike,
    model_of,
    optional_member,
    parse_members,
    project_id_of,
    write_members,
)
from services.router.formats.unpriced import kind_of
from services.router.formats.usage import UsageReading
from tollgate.ledger.v1.usage_pb2 import Usage


class EndpointNumber(IntEnum):
    """As records name endpoints. The numbers are those of `tollgate.ledger.v1.Endpoint`."""

    CHAT_COMPLETIONS = 1
    RESPONSES = 2
    EMBEDDINGS = 3
    IMAGE_GENERATIONS = 4
    MESSAGES = 5


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """A model call as the client made it, looked at no further than every format needs."""

    endpoint: "Endpoint"
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
    # The same as we would write it: no spaces, no name twice, letters as they are.
    written: bytes = field(repr=False)
    # Members that are asked for beyond what the client sent.
    added: Mapping[str, Any]
    # Headers of the client that a provider of the same format gets too.
    headers: Mapping[str, str]
    # The member by which it is about something that a provider keeps for the holder of the key; empty when it is not.
    kept_member: str = ""

    def body_for(self, upstream_model: str, *, own_key: bool) -> bytes:
        """The bytes to send: the client's own, unless the model is named otherwise or we have to ask for usage.

        With the platform's key nothing is to be kept, and nothing sent that others could read in another way than we.
        """
        added = self.added if own_key else {**self.added, **self.endpoint.not_kept}
        if upstream_model == self.model and not self.project_id and not added:
            return self.body if own_key or is_read_alike(self.body, self.written) else self.written

        members = {**self.members, "model": upstream_model, **added}
        members.pop("project_id", None)
        return orjson.dumps(members)


def _no_text() -> str:
    return ""


@dataclass(slots=True, kw_only=True)
class Answer:
    """A provider's whole answer, as the client gets it, and what it says about itself."""

    body: bytes = field(repr=False)
    # None when the provider did not report any.
    usage: UsageReading | None
    service_tier: str = ""
    # What an estimate knows for sure, because it can be counted: images, searches.
    counted: Usage = field(default_factory=Usage)
    # True when the provider's content filter refused in the form of an answer.
    rejected: bool = False
    text: Callable[[], str] = field(default=_no_text, repr=False)

    @property
    def output_text(self) -> str:
        """All text of the answer, in case tokens have to be counted."""
        return self.text()


class Endpoint(ABC):
    """One format that clients speak, on one path."""

    # As the providers file names it.
    name: ClassVar[str]
    path: ClassVar[str]
    number: ClassVar[EndpointNumber]
    # The format of the providers that speak it themselves, and its path there, after the base URL.
    native_format: ClassVar[str] = "openai"
    upstream_path: ClassVar[str]
    has_streams: ClassVar[bool] = True
    # Headers of clients that mean something to such providers.
    forwarded_headers: ClassVar[tuple[str, ...]] = ()
    # True where a request can be about what a provider keeps.
    knows_kept_state: ClassVar[bool] = True
    # The members that ask a provider to keep nothing, where it would unless told otherwise.
    not_kept: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    # The types of tools that cost nothing but tokens and what answers tell the number of. All others may.
    priced_tools: ClassVar[re.Pattern[str]] = re.compile("function|custom")

    def read(self, body: bytes, headers: Mapping[str, str]) -> ModelRequest:
        """A request in this format. Raises InvalidRequestError naming the member that is wrong."""
        members = parse_members(body)
        self.check(members)
        streamed = optional_member(members, "stream", bool, False)
        if streamed and not self.has_streams:
            raise InvalidRequestError("stream", "must be false here")
        usage_wanted = self.wants_usage(members)
        written = write_members(members)
        return ModelRequest(
            endpoint=self,
            model=model_of(members),
            streamed=streamed,
            usage_wanted=usage_wanted,
            project_id=project_id_of(members),
            members=members,
            body=body,
            written=body if body == written else written,
            added=self.usage_request(members) if streamed and not usage_wanted else {},
            headers={name: headers[name] for name in self.forwarded_headers if name in headers},
            kept_member=self.kept_member(members) if self.knows_kept_state else "",
        )

    @abstractmethod
    def check(self, members: Mapping[str, Any]) -> None:
        """Raises InvalidRequestError for what no provider could answer."""

    def kept_member(self, members: Mapping[str, Any]) -> str:
        """The member by which a request is about something that a provider keeps; empty when it is not."""
        return kept_member(members)

    def is_priced_tool(self, tool: Mapping[str, Any], tools: list[dict[str, Any]]) -> bool:
        """Whether the prices of a model say what one of these tools costs."""
        return self.priced_tools.fullmatch(kind_of(tool)) is not None

    def wants_usage(self, members: Mapping[str, Any]) -> bool:
        """Whether the client asked for the usage of a stream, or gets it anyway. Raises InvalidRequestError."""
        return True

    def usage_request(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """The members that ask for the usage of a stream."""
        return {}

    @abstractmethod
    def count_input(self, members: Mapping[str, Any], tokenizer: Tokenizer) -> int:
        """Estimates the tokens of a request, whatever is in it."""

    @abstractmethod
    def answer(self, request: ModelRequest, body: bytes, message: Mapping[str, Any]) -> Answer | None:
        """Reads a whole answer; None when it is none in this format."""

    def stream_reader(self, request: ModelRequest) -> StreamReader:
        """What reads along with a streamed answer."""
        raise NotImplementedError(f"{self.path} has no streams")

    def error_body(self, status: int, code: str, message: str) -> bytes:
        """What a client of this format is told when its call fails."""
        return error_body(status, code, message)

    def error_event(self, code: str, message: str) -> bytes:
        """How a stream in this format says that it goes wrong; the official SDKs raise it as an error."""
        raise NotImplementedError(f"{self.path} has no streams")
