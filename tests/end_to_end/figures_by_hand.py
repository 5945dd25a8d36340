"""Calls whose figures anybody can work out with a pencil: what is made, at which prices, on which day.

USD per token, and per call or search; storage is 0.00000001 per token. At `south` the organization pays a fifth less.

| provider, model | input | cached | output | other |
|---|---|---|---|---|
| north, alpha | 0.001 | 0.0001 | 0.01 | |
| south, alpha | 0.002 | | 0.02 | |
| south, beta | 0.003 | | 0.03 | |
| east, gamma | 0.001 | 0.0001 | 0.01 | those of `GAMMA` |

Today, through the router, in the order made:

| call | project | what | tokens in, out | cost |
|---|---|---|---|---|
| plain | web | north, alpha | 1,000, 100 | 1 + 1, storage 0.000011 |
| cached | web | the same again, from our cache | 1,000, 100 | storage 0.000011 |
| rescued | web | alpha fails at north; streamed from south | 500, 50 | (1 + 1) less a fifth, storage 0.0000055 |
| own key | lab | south, beta | 100, 10 | (0.3 + 0.3) less a fifth, storage 0.0000011 |
| prompt cache | mobile | east, gamma, 4 tokens cached | 10, 5 | 0.006 + 0.0004 + 0.05 + 0.5, storage 0.00000015 |
| failed | mobile | east, gamma: 500, so 502 | | 0 |
| refused | web | 400 before any attempt | | 0 |
| rejected | mobile | east, gamma: content filter, 400 | | 0.75 |

Yesterday, as a router sends records that waited:

| call | project | what | tokens in, out | cost |
|---|---|---|---|---|
| batch | web | north, alpha, 600 tokens cached | 1,000, 200 | 0.4 + 0.06 + 2 |
| everything | mobile | east, gamma, payloads retained | 100, 50 | 0.16 + 0.81 + 0.5 + 0.5, storage 0.0000015 |
| broken | lab | south, beta, own key: 502 | | 0 |
| throttled | web | refused, 429 | | 0 |

The day before that, imported from another gateway and so not charged: south, alpha, 10 tokens in and 1 out for
0.02 + 0.02 less a fifth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import grpc

from development.stack import Stack
from services.common.grpc_client import service_metadata
from services.common.uuid7 import new_uuid7
from tests.end_to_end.conftest import Answer, Api, Json
from tests.usage_builders import uuid7_at
from tollgate.ledger.v1.usage_pb2 import (
    ENDPOINT_CHAT_COMPLETIONS,
    FUNDING_CREDITS,
    FUNDING_OWN_KEY,
    OUTCOME_PROVIDER_ERROR,
    OUTCOME_REFUSED,
    OUTCOME_SUCCESS,
    USAGE_SOURCE_REPORTED,
    USAGE_SOURCE_UNSPECIFIED,
    Attempt,
    Usage,
    UsageRecord,
)
from tollgate.ledger.v1.usage_service_pb2 import RecordUsageRequest
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceStub

DAY = timedelta(days=1)
LONG_AGO = "2020-01-01T00:00:00Z"
GAMMA = {
    "INPUT_TOKEN": "0.001",
    "CACHED_INPUT_TOKEN": "0.0001",
    "CACHE_WRITE_TOKEN": "0.002",
    "INPUT_IMAGE_TOKEN": "0.003",
    "INPUT_AUDIO_TOKEN": "0.004",
    "OUTPUT_TOKEN": "0.01",
    "REASONING_TOKEN": "0.02",
    "OUTPUT_IMAGE_TOKEN": "0.03",
    "OUTPUT_AUDIO_TOKEN": "0.04",
    "REQUEST": "0.5",
    "WEB_SEARCH": "0.25",
    "REJECTION": "0.75",
}
PRICES = {
    ("north", "alpha"): {"INPUT_TOKEN": "0.001", "CACHED_INPUT_TOKEN": "0.0001", "OUTPUT_TOKEN": "0.01"},
    ("south", "alpha"): {"INPUT_TOKEN": "0.002", "OUTPUT_TOKEN": "0.02"},
    ("south", "beta"): {"INPUT_TOKEN": "0.003", "OUTPUT_TOKEN": "0.03"},
    ("east", "gamma"): GAMMA,
}
GRANTED = "1000"
PLAIN: Json = {
    "model": "north/alpha",
    "messages": [{"role": "user", "content": "Once. simulate:prompt=1000 simulate:tokens=100"}],
}


def providers_file(path: Path, simulator: str) -> Path:
    """Three providers, and a response cache for every project."""
    models = {"north": ["alpha"], "south": ["alpha", "beta"], "east": ["gamma"]}
    tables = [
        f'''
[[providers]]
name = "{name}"
format = "openai"
base_url = "http://{simulator}/{name}/v1"
api_key_variable = "SIMULATOR_API_KEY"
models = {{ {", ".join(f'"{model}" = {{ output_tokens_max = 1000 }}' for model in offered)} }}
'''
        for name, offered in models.items()
    ]
    path.write_text("[defaults]\ncache_seconds = 600\ncooldown_seconds = 0\n" + "".join(tables))
    return path


@dataclass(frozen=True, slots=True)
class Scene:
    """The organization after all calls, its key for everything and that of the project `mobile`."""

    organization_id: str
    api: Api
    mobile: Api
    operator: Api
    today: date
    # By the names in the tables above.
    ids: dict[str, str]
    api_key_ids: dict[str, str]

    def another_organization(self) -> Api:
        """One that can make the same calls."""
        organization_id = _created(self.operator, "/v1/organizations", {"display_name": "Another"})["organization"][
            "organization_id"
        ]
        own = {"organization_id": organization_id}
        _created(self.operator, "/v1/projects", {**own, "project_id": "web"})
        _created(self.operator, "/v1/credit_grants", {**own, "grant_id": "first", "amount": GRANTED})
        return Api(self.api.url, _created(self.operator, "/v1/api_keys", own)["secret"])

    @property
    def days(self) -> tuple[str, str, str]:
        """The day before yesterday, yesterday, today."""
        return tuple(str(self.today - number * DAY) for number in (2, 1, 0))  # type: ignore[return-value]


def _created(operator: Api, path: str, body: Json) -> Json:
    answer = operator.post(path, body)
    assert answer.status == 200, answer
    made: Json = answer.body
    return made


def play(stack: Stack, operator: Api) -> Scene:
    """Makes all calls. They are in the figures within two seconds of its return."""
    create = partial(_created, operator)
    for (provider, model), prices in PRICES.items():
        units = [{"unit": f"PRICE_UNIT_{unit}", "price": price, "per": 1} for unit, price in prices.items()]
        body = {"provider": provider, "model": model, "valid_from": LONG_AGO, "prices": {"unit_prices": units}}
        create("/v1/prices", body)
    organization = {"display_name": "By hand", "plan": "PLAN_PRO", "payload_retained": True}
    organization_id = create("/v1/organizations", organization)["organization"]["organization_id"]
    own = {"organization_id": organization_id}
    for project_id, mode in (("web", "CREDITS"), ("lab", "OWN_KEYS"), ("mobile", "CREDITS")):
        create("/v1/projects", {**own, "project_id": project_id, "mode": f"PROJECT_MODE_{mode}"})
    create("/v1/provider_keys", {**own, "provider": "south", "secret": "sk-own-by-hand"})
    create("/v1/discounts", {**own, "provider": "south", "fraction": "0.2", "valid_from": LONG_AGO})
    create("/v1/credit_grants", {**own, "grant_id": "first", "amount": GRANTED})
    keys = {"all": create("/v1/api_keys", own), "mobile": create("/v1/api_keys", {**own, "project_id": "mobile"})}
    apis = {name: Api(stack.url, key["secret"]) for name, key in keys.items()}
    api_key_ids = {name: key["api_key"]["api_key_id"] for name, key in keys.items()}

    _wait_past_midnight()
    today = datetime.now(UTC).date()
    ids = _calls_of_today(apis["all"], apis["mobile"])
    ids |= _calls_of_yesterday(stack, organization_id, api_key_ids["all"], today - DAY)
    ids |= _imported(apis["all"], today - 2 * DAY)
    return Scene(organization_id, apis["all"], apis["mobile"], operator, today, ids, api_key_ids)


def _wait_past_midnight() -> None:
    """Calls and questions of today take some seconds, and have to be of one day."""
    now = datetime.now(UTC)
    left = datetime.combine(now.date() + DAY, time(), UTC) - now
    if left < timedelta(minutes=1):
        sleep(left.total_seconds())


def _calls_of_today(api: Api, mobile: Api) -> dict[str, str]:
    def send(caller: Api, project: str, status: int, body: Json, **headers: str) -> str:
        answer: Answer = caller.post("/v1/chat/completions", body, x_tollgate_project=project, **headers)
        assert answer.status == status, answer
        return answer.headers["x-tollgate-request-id"]

    def call(caller: Api, project: str, model: str, prompt: str, status: int, **more: object) -> str:
        return send(
            caller, project, status, {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
        )

    chat = {"x_tollgate_workflow": "chat", "x_tollgate_metadata_team": "red"}
    return {
        "plain": send(api, "web", 200, PLAIN, **chat),
        "cached": send(api, "web", 200, PLAIN, **chat),
        "rescued": call(
            api, "web", "alpha", "simulate:status=503@north simulate:prompt=500 simulate:tokens=50", 200, stream=True
        ),
        "own key": call(api, "lab", "south/beta", "simulate:prompt=100 simulate:tokens=10", 200),
        "prompt cache": call(
            mobile, "mobile", "east/gamma", "simulate:prompt=10 simulate:tokens=5 simulate:cached=4", 200
        ),
        "failed": call(mobile, "mobile", "east/gamma", "simulate:status=500", 502),
        "refused": call(api, "web", "north/alpha", "Messages are no text.", 400, messages="text"),
        "rejected": call(mobile, "mobile", "east/gamma", "simulate:status=400 simulate:error_code=content_filter", 400),
    }


def _calls_of_yesterday(stack: Stack, organization_id: str, api_key_id: str, day: date) -> dict[str, str]:
    at = datetime.combine(day, time(10, 30), UTC)

    def record(provider: str, model: str, **fields: Any) -> UsageRecord:
        tried = [Attempt(provider=provider, upstream_model=model, funding=FUNDING_CREDITS, status=200, latency_ms=90)]
        ordinary: dict[str, Any] = {
            "request_id": uuid7_at(at),
            "organization_id": organization_id,
            "project_id": "web",
            "api_key_id": api_key_id,
            "endpoint": ENDPOINT_CHAT_COMPLETIONS,
            "requested_model": model,
            "model": model,
            "provider": provider,
            "start_time": at,
            "outcome": OUTCOME_SUCCESS,
            "status": 200,
            "funding": FUNDING_CREDITS,
            "usage_source": USAGE_SOURCE_REPORTED,
            "attempts": tried,
        }
        return UsageRecord(**ordinary | fields)

    failure = {"usage_source": USAGE_SOURCE_UNSPECIFIED, "outcome": OUTCOME_PROVIDER_ERROR, "status": 502}
    everything = Usage(
        input_tokens=100,
        cached_input_tokens=10,
        cache_write_tokens=5,
        input_image_tokens=20,
        input_audio_tokens=8,
        output_tokens=50,
        reasoning_tokens=7,
        output_image_tokens=6,
        output_audio_tokens=4,
        web_searches=2,
    )
    records = {
        "batch": record(
            "north",
            "alpha",
            usage=Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
            workflow="batch",
            streamed=True,
            latency_ms=400,
            time_to_first_token_ms=100,
        ),
        "everything": record(
            "east",
            "gamma",
            project_id="mobile",
            usage=everything,
            payload_retained=True,
            latency_ms=800,
            time_to_first_token_ms=200,
        ),
        "broken": record(
            "south",
            "beta",
            project_id="lab",
            funding=FUNDING_OWN_KEY,
            error_type="timeout",
            latency_ms=1_200,
            attempts=[Attempt(provider="south", upstream_model="beta", funding=FUNDING_OWN_KEY, error_type="timeout")],
            **failure,
        ),
        "throttled": record(
            "", "", **failure | {"outcome": OUTCOME_REFUSED, "status": 429}, error_type="rate_limited", attempts=[]
        ),
    }
    _record(stack, list(records.values()))
    return {name: one.request_id for name, one in records.items()}


def _record(stack: Stack, records: Sequence[UsageRecord]) -> None:
    for sequence, record in enumerate(records, 1):
        record.sequence = sequence
    request = RecordUsageRequest(producer_id=str(new_uuid7()), epoch=1, records=records)
    with grpc.insecure_channel(stack.addresses.ledger) as channel:
        stub: Any = UsageServiceStub(channel)
        answer = stub.RecordUsage(request, metadata=service_metadata(stack.secrets.service_token), timeout=10)
    assert [result.status for result in answer.results] == [1] * len(records), answer


def _imported(api: Api, day: date) -> dict[str, str]:
    record = {
        "project_id": "web",
        "endpoint": "ENDPOINT_CHAT_COMPLETIONS",
        "requested_model": "alpha",
        "model": "alpha",
        "provider": "south",
        "start_time": f"{day}T23:59:59Z",
        "latency_ms": 300,
        "time_to_first_token_ms": 50,
        "outcome": "OUTCOME_SUCCESS",
        "status": 200,
        "funding": "FUNDING_CREDITS",
        "usage": {"input_tokens": 10, "output_tokens": 1},
        "usage_source": "USAGE_SOURCE_REPORTED",
    }
    body = {"source": "before", "records": [{"source_id": "one", "record": record}]}
    (result,) = api.post("/v1/records:import", body).body["results"]
    return {"imported": result["request_id"]}
