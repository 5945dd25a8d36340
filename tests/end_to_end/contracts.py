"""Every method there is, and requests that name somebody's things: gRPC messages, and the REST requests they are."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tollgate.access.v1 import access_pb2

ROOT = Path(__file__).parents[2]
_SET = FileDescriptorSet.FromString((ROOT / "services" / "gen" / "tollgate.binpb").read_bytes())

HTTP_BODY = "google.api.HttpBody"

# Fields that name a thing of somebody's, with what they are filled with.
Names = Mapping[str, Any]
# Fields of text that name nothing of anybody's. A text that is in neither fails the walk: say which it is.
PLAIN = frozenset(
    re.findall(
        r"\w+",
        """
        action after amount at cached currency days discount display_name end_time error_type fraction from from_date
        from_time funding granularity group_by limit min_cost min_latency_ms multiplier offset page_token period
        preferred_providers price quality reason request_body request_content_type requested_model reserved
        response_body response_content_type secret service_tier size start_time state status threshold timezone to
        to_date to_time upstream_model webhook_url
        """,
    )
)
_AN_HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
# Paused: of two that are compared, one could have been evaluated already.
AN_ALERT_RULE = {"metric": "ALERT_METRIC_COST", "threshold": "1000", "window_minutes": 60, "paused": True}
# What a request needs beside names so that it is turned away for nothing else.
BODIES: dict[str, dict[str, Any]] = {
    "CreateAlertRule": AN_ALERT_RULE,
    "UpdateAlertRule": {"display_name": "Renamed"},
    "CreateOrganization": {"display_name": "Another"},
    "UpdateOrganization": {"display_name": "Renamed"},
    "CreateProject": {"project_id": "another"},
    "UpdateProject": {"mode": "PROJECT_MODE_HYBRID"},
    "UpdateApiKey": {"display_name": "renamed"},
    "SetProviderKey": {"provider": "openai", "secret": "sk-planted"},
    "ImportRecords": {
        "source": "elsewhere",
        "records": [
            {
                "source_id": "call-1",
                "record": {
                    "project_id": "web",
                    "endpoint": "ENDPOINT_CHAT_COMPLETIONS",
                    "requested_model": "gpt-4o",
                    "model": "gpt-4o",
                    "provider": "openai",
                    "start_time": _AN_HOUR_AGO.isoformat(),
                    "outcome": "OUTCOME_SUCCESS",
                    "status": 200,
                    "funding": "FUNDING_CREDITS",
                },
            }
        ],
    },
    "GetStatement": {"period": f"{_AN_HOUR_AGO:%Y-%m}"},
    "PreviewCost": {"provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 1}},
}


@dataclass(frozen=True, slots=True)
class Method:
    """One gRPC method."""

    descriptor: MethodDescriptor

    def __str__(self) -> str:
        return f"{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def access(self) -> access_pb2.Access:
        access: access_pb2.Access = self.descriptor.GetOptions().Extensions[access_pb2.access]
        return access

    @property
    def rules(self) -> list[HttpRule]:
        """Its REST paths."""
        options = self.descriptor.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            return []
        rule: HttpRule = options.Extensions[annotations_pb2.http]
        return [rule, *rule.additional_bindings]

    @property
    def streams(self) -> bool:
        return bool(self.descriptor.server_streaming)

    @property
    def request_class(self) -> Any:
        return GetMessageClass(self.descriptor.input_type)

    @property
    def answer_class(self) -> Any:
        return GetMessageClass(self.descriptor.output_type)

    @property
    def holds_model_call(self) -> bool:
        """Whether a request is a model call's body as it came over HTTP."""
        return any(field.message_type and field.message_type.full_name == HTTP_BODY for field in self.fields)

    @property
    def fields(self) -> list[FieldDescriptor]:
        return list(self.descriptor.input_type.fields)

    @property
    def texts(self) -> set[str]:
        """The names of the fields of text or bytes in a request."""
        return set(_texts_within(self.descriptor.input_type, depth=4))

    def request(self, names: Names, aim: frozenset[str], otherwise: Names) -> Message:
        """Names what is aimed at. What the path cannot do without comes from `otherwise`."""
        message: Message = ParseDict(BODIES.get(self.descriptor.name, {}), self.request_class())
        for name in {name for rule in self.rules for name in path_variables(rule)}:
            _fill(message, name, otherwise[name])
        for name in aim:
            _fill(message, name, names[name])
        return message


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One request as it is sent."""

    verb: str
    path: str
    body: dict[str, Any] | None


def every_method() -> list[Method]:
    """All that our contracts have, whoever serves it."""
    pool = DescriptorPool()
    for file in _SET.file:
        pool.Add(file)
    services = [
        pool.FindServiceByName(f"{file.package}.{service.name}")
        for file in _SET.file
        for service in file.service
        if file.package.startswith("tollgate.")
    ]
    return [Method(method) for service in services for method in service.methods]


def verb_and_path(rule: HttpRule) -> tuple[str, str]:
    verb = str(rule.WhichOneof("pattern"))
    return verb, getattr(rule, verb)


def path_variables(rule: HttpRule) -> list[str]:
    return re.findall(r"\{(\w+)\}", verb_and_path(rule)[1])


def rest_request(rule: HttpRule, message: Message) -> RestRequest:
    """The request that the gateway makes this message of."""
    fields = MessageToDict(message, preserving_proto_field_name=True)
    verb, template = verb_and_path(rule)
    path = re.sub(r"\{(\w+)\}", lambda variable: quote(fields.pop(variable[1]), safe=""), template)
    if rule.body:
        return RestRequest(verb.upper(), path, fields)
    query = urlencode(dict(_parameters(fields)))
    return RestRequest(verb.upper(), f"{path}?{query}" if query else path, None)


def _parameters(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        else:
            yield name, value


def _texts_within(message: Descriptor, depth: int) -> Iterator[str]:
    for field in message.fields:
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) or _is_map(field):
            yield field.name
        elif field.message_type is not None and depth:
            yield from _texts_within(field.message_type, depth - 1)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill(message: Message, name: str, value: Any) -> None:
    """The field of this name, in the message and in those that it holds."""
    for field in message.DESCRIPTOR.fields:
        held = getattr(message, field.name)
        if field.name == name and _is_map(field):
            held.update(value)
        elif field.name == name and field.is_repeated:
            held.append(value)
        elif field.name == name:
            setattr(message, name, value)
        elif field.message_type is not None and not _is_map(field):
            present = list(held) if field.is_repeated else [held] * message.HasField(field.name)
            for one in present:
                _fill(one, name, value)
