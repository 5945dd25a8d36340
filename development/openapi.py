"""Writes what the REST surface is, for programs (`openapi.json`) and for people (`docs.html`): part of `make generate`.

Everything comes from the descriptor set: paths from the annotations, words from the comments, spelling from whichever
transcoder of the gateway serves a method.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.api import annotations_pb2
from google.api.field_behavior_pb2 import REQUIRED, field_behavior
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from development.openapi_page import page
from tollgate.access.v1 import access_pb2

ROOT = Path(__file__).resolve().parents[1]
GATEWAY = ROOT / "gateway-envoy" / "envoy.yaml"
HTTP_BODY = ".google.api.HttpBody"

Json = dict[str, Any]
F = FieldDescriptorProto

SCALARS: dict[int, Json] = {
    F.TYPE_STRING: {"type": "string"},
    F.TYPE_BOOL: {"type": "boolean"},
    F.TYPE_DOUBLE: {"type": "number"},
    F.TYPE_FLOAT: {"type": "number"},
    F.TYPE_INT32: {"type": "integer", "format": "int32"},
    F.TYPE_SINT32: {"type": "integer", "format": "int32"},
    F.TYPE_UINT32: {"type": "integer", "minimum": 0},
    F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
# JSON shows 64 bits as a string, and takes either.
WIDE: Json = {"type": ["string", "integer"], "pattern": r"^-?\d+$"}
WELL_KNOWN: dict[str, Json] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string"},
    ".google.protobuf.Value": {},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.FieldMask": {"type": "string"},
}
FILE_TYPES = {".csv": "text/csv", ".jsonl": "application/jsonl"}

ERRORS = {
    "400": "A parameter or field is missing or wrong; the message names it.",
    "401": "There is no valid key.",
    "403": "The key may not do this, or a filter names what is not its own.",
    "404": "There is nothing of this name, or it is not the key's.",
    "409": "There is something else of this name already, or somebody changed it meanwhile.",
    "413": "The request is larger than 512 KiB.",
    "429": "Too much at once; `retry-after` says when to come back.",
    "503": "The fault is ours; `retry-after` says when to try again.",
}
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string", "description": "What to do next, in a sentence."},
                "type": {
                    "type": "string",
                    "enum": [
                        "invalid_request_error",
                        "authentication_error",
                        "permission_error",
                        "not_found_error",
                        "insufficient_credits",
                        "rate_limit_error",
                        "provider_error",
                        "service_unavailable",
                    ],
                },
                "code": {"type": "string", "description": "The reason, one of a closed list."},
            },
        },
        "message": {"type": "string", "description": "The same message, for clients of the activity family."},
    },
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and verb of one method."""

    service: str
    method: MethodDescriptorProto
    rule: HttpRule
    comment: str
    is_camel: bool

    @property
    def verb_and_path(self) -> tuple[str, str]:
        verb = str(self.rule.WhichOneof("pattern"))
        return verb, re.sub(r"\{(\w+)=[^}]*\}", r"{\1}", getattr(self.rule, verb))

    @property
    def path_variables(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.verb_and_path[1])


class Descriptors:
    """The descriptor set with its comments, by full name."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        self.methods: list[tuple[str, MethodDescriptorProto, str]] = []
        for file in descriptors.file:
            self._read(file)

    def _read(self, file: FileDescriptorProto) -> None:
        comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
        package = f".{file.package}"
        for number, message in enumerate(file.message_type):
            self._read_message(package, message, (4, number), comments)
        self.enums |= {f"{package}.{enum.name}": enum for enum in file.enum_type}
        for number, service in enumerate(file.service):
            self.comments[f"{package}.{service.name}"] = _text(comments.get((6, number), ""))
            for index, method in enumerate(service.method):
                comment = _text(comments.get((6, number, 2, index), ""))
                self.methods.append((f"{file.package}.{service.name}", method, comment))

    def _read_message(
        self, prefix: str, message: DescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
    ) -> None:
        name = f"{prefix}.{message.name}"
        self.messages[name] = message
        self.comments[name] = _text(comments.get(path, ""))
        for number, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = _text(comments.get((*path, 2, number), ""))
        for number, nested in enumerate(message.nested_type):
            self._read_message(name, nested, (*path, 3, number), comments)
        self.enums |= {f"{name}.{enum.name}": enum for enum in message.enum_type}

    def operations(self, camel_services: set[str]) -> Iterator[Operation]:
        for service, method, comment in self.methods:
            if service.startswith("tollgate.") and method.options.HasExtension(annotations_pb2.http):
                rule: HttpRule = method.options.Extensions[annotations_pb2.http]
                for one in (rule, *rule.additional_bindings):
                    yield Operation(service, method, one, comment, service in camel_services)


class Document:
    """An OpenAPI document in the making."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._schemas: Json = {"Error": ERROR_SCHEMA}
        self._paths: dict[str, Json] = {}
        self._tags: dict[str, str] = {}

    def add(self, operation: Operation) -> None:
        verb, path = operation.verb_and_path
        tag = operation.service.rpartition(".")[2].removesuffix("Service")
        self._tags[tag] = self._descriptors.comments[f".{operation.service}"]
        self._paths.setdefault(path, {})[verb] = self._operation(operation, tag)

    def whole(self) -> Json:
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Tollgate",
                "version": "1",
                "description": "An LLM gateway with an exact bill. Model routes speak the formats of OpenAI and "
                "Anthropic and are documented by them. Query parameters are text; unknown ones are ignored.",
            },
            "security": [{"bearer": []}, {"apiKey": []}],
            "tags": [{"name": name, "description": text} for name, text in sorted(self._tags.items())],
            "paths": dict(sorted(self._paths.items())),
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "responses": {
                    status: {
                        "description": text,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                    }
                    for status, text in ERRORS.items()
                },
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }

    def _operation(self, operation: Operation, tag: str) -> Json:
        summary, _, description = operation.comment.partition("\n\n")
        access: access_pb2.Access = operation.method.options.Extensions[access_pb2.access]
        scope = access_pb2.Scope.Name(access.scope).removeprefix("SCOPE_").lower()
        needs = f"Needs a key of scope `{scope}` or wider{', not a read-only one' if access.writes else ''}."
        verb, path = operation.verb_and_path
        result: Json = {
            "operationId": operation.method.name + ("" if path.startswith("/v1/") else "Unversioned"),
            "tags": [tag],
            "summary": summary,
            "description": f"{description}\n\n{needs}".strip(),
            "parameters": self._parameters(operation),
            "responses": self._responses(operation),
        }
        if verb in ("post", "put", "patch"):
            result["requestBody"] = self._body(operation)
        return {name: value for name, value in result.items() if value}

    def _parameters(self, operation: Operation) -> list[Json]:
        message = operation.method.input_type
        parameters = []
        for field in self._descriptors.messages[message].field:
            in_path = field.name in operation.path_variables
            if not in_path and operation.rule.body in ("*", field.name):
                continue
            if not in_path and self._is_map(field):
                continue  # has no name that a document could give; the comment says how it is asked for
            parameters.append(
                {
                    "name": field.name if in_path else self._name(field, operation.is_camel),
                    "in": "path" if in_path else "query",
                    "required": in_path,
                    "description": self._descriptors.comments[f"{message}.{field.name}"],
                    "schema": {"type": "string", "minLength": 1} if in_path else {"type": "string"},
                }
            )
        return parameters

    def _body(self, operation: Operation) -> Json:
        message = operation.method.input_type
        if operation.rule.body != "*":
            (field,) = (one for one in self._descriptors.messages[message].field if one.name == operation.rule.body)
            schema = self._schema_of(field, operation.is_camel)
        else:
            schema = self._object(message, operation.is_camel, without=operation.path_variables, is_request=True)
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _responses(self, operation: Operation) -> Json:
        _, path = operation.verb_and_path
        if operation.method.output_type == HTTP_BODY:
            kind = next((kind for suffix, kind in FILE_TYPES.items() if path.endswith(suffix)), "*/*")
            content: Json = {kind: {"schema": {"type": "string"}}}
        else:
            schema = self._reference(operation.method.output_type, operation.is_camel)
            content = {"application/json": {"schema": schema}}
        responses: Json = {"200": {"description": "The answer.", "content": content}}
        if operation.verb_and_path[0] == "get":
            responses["304"] = {"description": "Nothing has changed since the answer that `if-none-match` names."}
        return responses | {status: {"$ref": f"#/components/responses/{status}"} for status in ERRORS}

    def _reference(self, message: str, is_camel: bool) -> Json:
        name = message.removeprefix(".tollgate.").removeprefix(".google.")
        if name not in self._schemas:
            self._schemas[name] = {}  # a message may hold itself
            self._schemas[name] = self._object(message, is_camel)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(
        self, message: str, is_camel: bool, *, without: list[str] | None = None, is_request: bool = False
    ) -> Json:
        fields = [one for one in self._descriptors.messages[message].field if one.name not in (without or [])]
        properties = {self._name(field, is_camel): self._property(message, field, is_camel) for field in fields}
        if is_request:
            required = [field for field in fields if REQUIRED in field.options.Extensions[field_behavior]]
        else:
            required = [field for field in fields if self._is_always_there(field)]
        schema: Json = {"type": "object", "properties": properties}
        if self._descriptors.comments.get(message):
            schema["description"] = self._descriptors.comments[message]
        if required:
            schema["required"] = [self._name(field, is_camel) for field in required]
        return schema

    def _property(self, message: str, field: FieldDescriptorProto, is_camel: bool) -> Json:
        schema = self._schema_of(field, is_camel)
        comment = self._descriptors.comments.get(f"{message}.{field.name}")
        return {"description": comment} | schema if comment else schema

    def _schema_of(self, field: FieldDescriptorProto, is_camel: bool) -> Json:
        if self._is_map(field):
            value = self._descriptors.messages[field.type_name].field[1]
            return {"type": "object", "additionalProperties": self._schema_of(value, is_camel)}
        one = self._schema_of_one(field, is_camel)
        return {"type": "array", "items": one} if field.label == F.LABEL_REPEATED else one

    def _schema_of_one(self, field: FieldDescriptorProto, is_camel: bool) -> Json:
        if field.type == F.TYPE_MESSAGE:
            if field.type_name in WELL_KNOWN:
                return WELL_KNOWN[field.type_name]
            return self._reference(field.type_name, is_camel)
        if field.type == F.TYPE_ENUM:
            return {"type": "string", "enum": [value.name for value in self._descriptors.enums[field.type_name].value]}
        return SCALARS.get(field.type, WIDE)

    def _is_map(self, field: FieldDescriptorProto) -> bool:
        message = self._descriptors.messages.get(field.type_name)
        return message is not None and message.options.map_entry

    def _is_always_there(self, field: FieldDescriptorProto) -> bool:
        """Zeros and empty lists are printed; messages that are not set and `optional` fields are not."""
        if field.proto3_optional or field.HasField("oneof_index"):
            return False
        return field.label == F.LABEL_REPEATED or field.type != F.TYPE_MESSAGE

    def _name(self, field: FieldDescriptorProto, is_camel: bool) -> str:
        """A name given by hand counts in either spelling where it is no mere camelCase of the field's."""
        words = field.name.split("_")
        is_by_hand = field.json_name != words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:])
        return field.json_name if is_camel or is_by_hand else field.name


def camel_services() -> set[str]:
    """The services that the gateway spells in camelCase."""
    gateway = yaml.safe_load(GATEWAY.read_text())
    (chain,) = gateway["static_resources"]["listeners"][0]["filter_chains"]
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    (camel,) = (one["typed_config"] for one in filters if one["name"] == "camel")
    return set(camel["services"])


def document(descriptors: FileDescriptorSet) -> Json:
    """The OpenAPI document of these contracts."""
    read = Descriptors(descriptors)
    made = Document(read)
    for operation in read.operations(camel_services()):
        made.add(operation)
    return made.whole()


def _text(comment: str) -> str:
    """A comment without its line breaks, but with its paragraphs."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)


def main() -> None:
    directory = Path(sys.argv[1])
    made = document(FileDescriptorSet.FromString((directory / "tollgate.binpb").read_bytes()))
    (directory / "openapi.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    (directory / "docs.html").write_text(page(made))


if __name__ == "__main__":
    main()
