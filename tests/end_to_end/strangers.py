"""One organization with everything, strangers who know the ids of its things, and what strangers are told."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from development.stack import Stack
from services.common.authentication import hash_key
from tests.end_to_end.conftest import Answer as RestAnswer
from tests.end_to_end.conftest import Api, Customer
from tests.end_to_end.contracts import AN_ALERT_RULE, BODIES, HTTP_BODY, Method, Names, RestRequest

SECONDS = 10
# A request that is wrong anyway, or met a fault of ours, compares nothing.
SHOWING_NOTHING = ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "400", "502", "503")
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Ids, secrets and times differ by chance from one to the other of two who are told the same.
_BY_CHANCE = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\btg_[\w-]{43}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
)
_HEADERS_BY_CHANCE = frozenset(
    {"content-length", "date", "etag", "x-request-id", "x-tollgate-as-of", "x-tollgate-duration-ms"}
)


@dataclass(frozen=True, slots=True)
class Told:
    """What somebody was told."""

    succeeded: bool
    status: str
    headers: Mapping[str, str]
    body: str

    @property
    def all_words(self) -> str:
        return f"{self.headers} {self.body}"

    def without(self, names: Names) -> tuple[Any, ...]:
        """The same without what the reader has named, now or before, and what differs by chance."""
        words = _words(names)

        def clean(text: str) -> str:
            for word in words:
                text = text.replace(word, "…")
            return _BY_CHANCE.sub("…", text)

        headers = {name: clean(value) for name, value in self.headers.items() if name not in _HEADERS_BY_CHANCE}
        return self.status, headers, clean(self.body)


def _words(names: Names) -> list[str]:
    """Longest first. Bare numbers are no words: they mean too much else."""
    values = [one for value in names.values() for one in (value.values() if isinstance(value, dict) else [value])]
    return sorted(
        (value for value in values if isinstance(value, str) and not value.isdecimal()), key=len, reverse=True
    )


@dataclass(frozen=True, slots=True)
class Theirs:
    """An organization's things: those that strangers name, and those that nobody but itself may ever see."""

    customer: Customer
    operator: Api
    names: Names
    hidden: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """No successful answer to a stranger holds one, not even as an echo."""
        return [self.names[name] for name in ("organization_id", "request_id")]

    def state(self) -> list[Any]:
        """All that may be changed of them."""
        of_theirs = f"organization_id={self.customer.organization_id}&limit=500"
        lists = (
            "projects",
            "api_keys",
            "provider_keys",
            "audit_entries",
            "credit_grants",
            "discounts",
            "ledger_entries",
        )
        return [
            self.operator.get(f"/v1/organizations/{self.customer.organization_id}").body,
            *(self.operator.get(f"/v1/{name}?{of_theirs}").body for name in lists),
        ]


# What does not exist, as long as what does: so bodies of the same words have the same length.
NOWHERE: Names = {
    "alert_rule_id": "0199a000-0000-7000-8000-00000000babe",
    "api_key_id": "0199a000-0000-7000-8000-00000000beef",
    "discount_id": "999999",
    "grant_id": "grant-nowhere",
    "key_hash": hash_key("tg_nowhere"),
    "lease_id": "0199a000-0000-7000-8000-00000000feed",
    "metadata": {"team": "metadata-nowhere"},
    "model": "model-nowhere",
    "organization_id": "0199a000-0000-7000-8000-00000000dead",
    "producer_id": "0199a000-0000-7000-8000-00000000cafe",
    "project_id": "project-nowhere",
    "provider": "provider-nowhere",
    "refund_id": "refund-nowhere",
    "request_id": "0199a000-0000-7000-8000-00000000f00d",
    "source": "source-nowhere",
    "source_id": "call-nowhere",
    "subject": "project/project-nowhere",
    "workflow": "workflow-nowhere",
}


def make_theirs(operator: Api, customer: Customer) -> Theirs:
    """Gives an organization one of everything to be named, and another of everything to be kept from strangers."""
    own = {"organization_id": customer.organization_id}
    hidden = f"hidden-{uuid4().hex[:8]}"

    def create(path: str, **body: Any) -> dict[str, Any]:
        answer = operator.post(path, {**own, **body})
        assert answer.status == 200, answer
        made: dict[str, Any] = answer.body
        return made

    def call(suffix: str) -> str:
        answer = customer.api.post(
            "/v1/chat/completions",
            {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Say {suffix}"}]},
            x_tollgate_project=f"project-{suffix}",
            x_tollgate_workflow=f"workflow-{suffix}",
            x_tollgate_metadata_team=f"metadata-{suffix}",
            idempotency_key=f"retry-{suffix}",
        )
        assert answer.status == 200, answer
        return answer.headers["x-tollgate-request-id"]

    operator.patch(f"/v1/organizations/{customer.organization_id}", {"display_name": f"display-{hidden}"})
    for suffix in ("theirs", hidden):
        create("/v1/projects", project_id=f"project-{suffix}")
        create("/v1/provider_keys", provider=f"provider-{suffix}", secret=f"sk-{suffix}")
        create("/v1/credit_grants", grant_id=f"grant-{suffix}", amount="3")
        create("/v1/records:import", source=f"source-{suffix}", records=[_imported(suffix)])
    keys = [create("/v1/api_keys", display_name=f"key-{suffix}") for suffix in ("theirs", hidden)]
    rules = [create("/v1/alert_rules", **AN_ALERT_RULE, display_name=f"rule-{s}") for s in ("theirs", hidden)]
    create("/v1/discounts", provider="openai", fraction="0.25")
    (discount,) = operator.get(f"/v1/discounts?organization_id={customer.organization_id}").body["discounts"]
    request_id, hidden_request_id = call("theirs"), call(hidden)
    customer.api.call(hidden_request_id)
    names = {
        "alert_rule_id": rules[0]["alert_rule"]["alert_rule_id"],
        "api_key_id": keys[0]["api_key"]["api_key_id"],
        "discount_id": discount["discount_id"],
        "grant_id": "grant-theirs",
        "key_hash": hash_key(keys[0]["secret"]),
        "lease_id": "0199a000-0000-7000-8000-00000000feed",
        "metadata": {"team": "metadata-theirs"},
        "model": "model-theirs",
        "organization_id": customer.organization_id,
        "producer_id": "0199a000-0000-7000-8000-00000000cafe",
        "project_id": "project-theirs",
        "provider": "provider-theirs",
        "refund_id": "refund-theirs",
        "request_id": request_id,
        "source": "source-theirs",
        "source_id": "call-theirs",
        "subject": "project/project-theirs",
        "workflow": "workflow-theirs",
    }
    hidden_ids = keys[1]["api_key"]["api_key_id"], rules[1]["alert_rule"]["alert_rule_id"], hidden_request_id
    return Theirs(customer, operator, names, (hidden, *hidden_ids, *(key["secret"] for key in keys)))


def _imported(suffix: str) -> dict[str, Any]:
    """A call of a model that nobody else has, at a provider that nobody else has."""
    (a_call,) = copy.deepcopy(BODIES["ImportRecords"]["records"])
    named = {"project_id": f"project-{suffix}", "provider": f"provider-{suffix}", "model": f"model-{suffix}"}
    return {"source_id": f"call-{suffix}", "record": {**a_call["record"], **named}}


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody of another organization, with a key of each kind."""

    stack: Stack
    # Of each kind.
    apis: Mapping[str, Api]

    def grpc(self, method: Method, request: Message, kind: str, headers: Mapping[str, str] = NO_HEADERS) -> Told:
        """Asks the service itself, past the gateway."""
        metadata = (("authorization", f"Bearer {self.apis[kind].key}"), *headers.items())
        with grpc.insecure_channel(_address_of(self.stack, method)) as channel:
            return _told_by_grpc(channel, method, request, metadata)

    def rest(self, request: RestRequest, kind: str, headers: Mapping[str, str] = NO_HEADERS) -> Told:
        """Asks the gateway."""
        return _told_by_rest(self.apis[kind].send(request.verb, request.path, request.body, headers))


KINDS = ("organization", "read-only", "project", "unknown")


def make_stranger(stack: Stack, operator: Api, customer: Customer) -> Stranger:
    def key(**settings: Any) -> str:
        answer = operator.post("/v1/api_keys", {"organization_id": customer.organization_id, **settings})
        assert answer.status == 200, answer
        return str(answer.body["secret"])

    keys = {
        "organization": key(),
        "read-only": key(read_only=True),
        "project": key(project_id="web"),
        "unknown": "tg_unknown",
    }
    return Stranger(stack, {kind: Api(stack.url, secret) for kind, secret in keys.items()})


def _address_of(stack: Stack, method: Method) -> str:
    at = stack.addresses
    return {"ledger": at.ledger, "reporting": at.reporting, "router": at.router_grpc}[str(method).split(".")[1]]


def _told_by_grpc(channel: grpc.Channel, method: Method, request: Message, metadata: Any) -> Told:
    answer_class = method.answer_class
    if method.streams:
        start: Callable[..., Any] = channel.unary_stream(f"/{method}", None, answer_class.FromString)
        call = start(request.SerializeToString(), metadata=metadata, timeout=SECONDS)
    else:
        start = channel.unary_unary(f"/{method}", None, answer_class.FromString)
        call = start.future(request.SerializeToString(), metadata=metadata, timeout=SECONDS)
    try:
        answers = list(call) if method.streams else [call.result()]
    except grpc.RpcError as error:
        return _refused_by_grpc(error)
    return Told(True, "OK", dict(call.initial_metadata()), "".join(map(_text, answers)))


def _text(answer: Any) -> str:
    body = getattr(answer, "body", answer)
    if body.DESCRIPTOR.full_name == HTTP_BODY:
        return str(body.data.decode())
    return MessageToJson(answer, preserving_proto_field_name=True)


def _refused_by_grpc(error: Any) -> Told:
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    body = f"{status.message} {info.reason} {sorted(info.metadata.items())}"
    return Told(False, error.code().name, {}, body)


def _told_by_rest(answer: RestAnswer) -> Told:
    return Told(answer.status < 400, str(answer.status), answer.headers, str(answer.body))
