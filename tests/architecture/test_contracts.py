"""What holds for every contract, read from the descriptor set that Envoy is given."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from tollgate.access.v1 import access_pb2

ROOT = Path(__file__).parents[2]
DESCRIPTORS = FileDescriptorSet.FromString((ROOT / "services/gen/tollgate.binpb").read_bytes())
GATEWAY: dict[str, Any] = yaml.safe_load((ROOT / "gateway-envoy/envoy.yaml").read_text())
# In JSON these are a string, an object or whatever they hold, and never their fields.
WRITTEN_OTHERWISE = {".google.protobuf.Timestamp", ".google.protobuf.Duration", ".google.api.HttpBody"}
SIXTY_FOUR_BITS = {
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_UINT64,
    FieldDescriptorProto.TYPE_SINT64,
    FieldDescriptorProto.TYPE_FIXED64,
    FieldDescriptorProto.TYPE_SFIXED64,
}
VERBS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Method:
    service: str
    proto: MethodDescriptorProto

    def __str__(self) -> str:
        return f"{self.service}/{self.proto.name}"

    @property
    def access(self) -> access_pb2.Access:
        access: access_pb2.Access = self.proto.options.Extensions[access_pb2.access]
        return access

    @property
    def bindings(self) -> list[HttpRule]:
        """Its REST paths; none when it has no annotation."""
        if not self.proto.options.HasExtension(annotations_pb2.http):
            return []
        rule: HttpRule = self.proto.options.Extensions[annotations_pb2.http]
        return [rule, *rule.additional_bindings]


def every_method() -> Iterator[Method]:
    for file in DESCRIPTORS.file:
        for service in file.service:
            if file.package.startswith("tollgate."):
                yield from (Method(f"{file.package}.{service.name}", method) for method in service.method)


def messages_within(prefix: str, messages: Any) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from messages_within(name, message.nested_type)


METHODS = list(every_method())
REST_METHODS = [method for method in METHODS if method.bindings]
MESSAGES = {
    name: message
    for file in DESCRIPTORS.file
    for name, message in messages_within(f".{file.package}", file.message_type)
}
HTTP_FILTERS = GATEWAY["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def path_of(rule: HttpRule) -> tuple[str, str]:
    verb = rule.WhichOneof("pattern")
    assert verb in VERBS
    return verb, getattr(rule, verb)


def path_variables(rule: HttpRule) -> set[str]:
    return set(re.findall(r"\{([^}=]+)", path_of(rule)[1]))


def fields_reached_from(name: str, seen: set[str]) -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Every field that the JSON of a message can show."""
    if name in seen or name in WRITTEN_OTHERWISE:
        return
    seen.add(name)
    for field in MESSAGES[name].field:
        yield f"{name}.{field.name}", field
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            yield from fields_reached_from(field.type_name, seen)


def transcoded_services() -> list[str]:
    filters = HTTP_FILTERS["http_filters"]
    return [name for one in filters for name in one["typed_config"].get("services", [])]


def routed_prefixes() -> list[str]:
    (host,) = HTTP_FILTERS["route_config"]["virtual_hosts"]
    return [route["match"]["prefix"] for route in host["routes"] if "tollgate" in route["match"].get("prefix", "")]


def test_the_descriptor_set_holds_the_contracts() -> None:
    assert len(METHODS) >= 8
    assert len(REST_METHODS) >= 5


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_says_who_may_call_it(method: Method) -> None:
    assert method.access.scope != access_pb2.SCOPE_UNSPECIFIED


@pytest.mark.parametrize("method", REST_METHODS, ids=str)
def test_rest_answers_hold_no_64_bit_integers(method: Method) -> None:
    """JSON shows them as strings. In a request a number is taken for one."""
    reached = fields_reached_from(method.proto.output_type, set())

    assert [name for name, field in reached if field.type in SIXTY_FOUR_BITS] == []


@pytest.mark.parametrize("method", REST_METHODS, ids=str)
def test_what_comes_by_path_or_query_is_text(method: Method) -> None:
    """Envoy refuses other types itself, before anybody has looked at the key and with the wrong name."""
    for rule in method.bindings:
        fields = MESSAGES[method.proto.input_type].field
        variables = path_variables(rule)
        assert variables <= {field.name for field in fields}
        for field in fields:
            if rule.body != "*" or field.name in variables:
                # A map does not bind: what comes for it is found in the path, and native callers fill it.
                is_map = field.type_name in MESSAGES and MESSAGES[field.type_name].options.map_entry
                is_text = field.type == FieldDescriptorProto.TYPE_STRING or is_map
                assert is_text or field.name == rule.body, f"{field.name} must be a string, parsed in the service"


@pytest.mark.parametrize("method", [method for method in REST_METHODS if method.bindings[0].get], ids=str)
def test_what_only_reads_is_a_get_and_writes_nothing(method: Method) -> None:
    assert not method.access.writes


def test_no_two_methods_share_a_path() -> None:
    def shape(rule: HttpRule) -> tuple[str, str]:
        verb, path = path_of(rule)
        return verb, re.sub(r"\{[^}]+\}", "{}", path)

    paths = Counter(shape(rule) for method in REST_METHODS for rule in method.bindings)

    assert [path for path, count in paths.items() if count > 1] == []


def test_only_the_guard_looks_at_the_path_a_request_came_by() -> None:
    """A query parameter or a body can replace what the path says, so what counts is what is in the message."""
    readers = [
        path.relative_to(ROOT)
        for path in (ROOT / "services").rglob("*.py")
        if "gen" not in path.parts and re.search(r"x-envoy-original-path|TRANSCODED_HEADER", path.read_text())
    ]

    assert readers == [Path("services/common/grpc_calls.py")]


def test_every_service_with_rest_methods_is_transcoded_once() -> None:
    assert Counter(transcoded_services()) == Counter({method.service for method in REST_METHODS})


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_gateway_lets_in_what_is_public_and_nothing_else(method: Method) -> None:
    is_routed = any(f"/{method}".startswith(prefix) for prefix in routed_prefixes())

    assert is_routed == (method.access.scope != access_pb2.SCOPE_SERVICE)
