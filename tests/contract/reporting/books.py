"""Organizations with calls in the books, by the ledger's own recording code, at prices one can calculate with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg

from services.common.authentication import Scope, hash_key
from services.ledger.prices.price_book import Discount, PriceBook, PriceVersion
from services.ledger.pricing import Prices, Rates, Unit
from services.ledger.storage.usage.contents import prepare
from services.ledger.storage.usage.ingest import Ingest, Outcome
from services.ledger.storage.usage.usage import prepare_session
from services.ledger.usage.convert_usage import delivery_from_proto
from services.ledger.usage.recording import priced
from tests.conftest import Database
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

# A Wednesday. Everything that is not told otherwise happens now.
NOW = datetime(2026, 5, 20, 10, 30, tzinfo=UTC)
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_MILLION = Decimal(1_000_000)
# By the days they keep; any other term is an Enterprise customer's.
_PLANS = {3: 1, 90: 2}

# USD per million tokens, or per piece.
GPT_4O = Prices(
    base=Rates(
        {
            Unit.INPUT_TOKEN: Decimal("2.50") / _MILLION,
            Unit.CACHED_INPUT_TOKEN: Decimal("1.25") / _MILLION,
            Unit.OUTPUT_TOKEN: Decimal("10.00") / _MILLION,
        }
    )
)
# Every kind of charge has a price of its own.
EVERYTHING = Prices(
    base=Rates(
        {
            Unit.INPUT_TOKEN: Decimal("0.001"),
            Unit.CACHED_INPUT_TOKEN: Decimal("0.0001"),
            Unit.CACHE_WRITE_TOKEN: Decimal("0.002"),
            Unit.INPUT_IMAGE_TOKEN: Decimal("0.003"),
            Unit.INPUT_AUDIO_TOKEN: Decimal("0.004"),
            Unit.OUTPUT_TOKEN: Decimal("0.01"),
            Unit.REASONING_TOKEN: Decimal("0.02"),
            Unit.OUTPUT_IMAGE_TOKEN: Decimal("0.03"),
            Unit.OUTPUT_AUDIO_TOKEN: Decimal("0.04"),
            Unit.REQUEST: Decimal("0.5"),
            Unit.WEB_SEARCH: Decimal("0.25"),
            Unit.REJECTION: Decimal("0.75"),
        }
    )
)
PRICE_VERSIONS = [
    PriceVersion(1, "openai", "gpt-4o", _LONG_AGO, "operator", GPT_4O),
    PriceVersion(2, "azure", "gpt-4o", _LONG_AGO, "operator", GPT_4O),
    PriceVersion(3, "openai", "everything", _LONG_AGO, "operator", EVERYTHING),
]


@dataclass(frozen=True, slots=True)
class Key:
    secret: str
    api_key_id: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.secret}"),)


def uuid7_at(moment: datetime) -> str:
    """An id as the router makes it for a call that arrives then."""
    milliseconds = int(moment.timestamp() * 1000)
    random = uuid4().int & ((1 << 80) - 1)
    number = (milliseconds << 80) | random
    number = number & ~(0xF << 76) | (0x7 << 76)
    return str(UUID(int=number & ~(0x3 << 62) | (0x2 << 62)))


@dataclass(frozen=True, slots=True)
class Customer:
    """An organization with the project `web` and a key for all of it. Makes records of its calls."""

    organization_id: str
    key: Key

    def call(self, *, at: datetime = NOW, **fields: Any) -> UsageRecord:
        """1,000 tokens in and 200 out of gpt-4o at openai, for the project `web`, on credits: 0.0045 USD."""
        ordinary: dict[str, Any] = {
            "request_id": uuid7_at(at),
            "organization_id": self.organization_id,
            "project_id": "web",
            "api_key_id": self.key.api_key_id,
            "endpoint": ENDPOINT_CHAT_COMPLETIONS,
            "requested_model": "gpt-4o",
            "model": "gpt-4o",
            "provider": "openai",
            "start_time": at,
            "latency_ms": 820,
            "time_to_first_token_ms": 310,
            "outcome": OUTCOME_SUCCESS,
            "status": 200,
            "funding": FUNDING_CREDITS,
            "usage": Usage(input_tokens=1_000, output_tokens=200),
            "usage_source": USAGE_SOURCE_REPORTED,
            "attempts": [
                Attempt(provider="openai", upstream_model="gpt-4o-2024-11-20", funding=FUNDING_CREDITS, status=200)
            ],
        }
        return UsageRecord(**(ordinary | fields))

    def own_key_call(self, **fields: Any) -> UsageRecord:
        return self.call(**fields, funding=FUNDING_OWN_KEY)

    def failed_call(self, **fields: Any) -> UsageRecord:
        """Every provider failed: 502, and nothing to pay."""
        failure: dict[str, Any] = {
            "outcome": OUTCOME_PROVIDER_ERROR,
            "status": 502,
            "error_type": "status",
            "usage": None,
            "usage_source": USAGE_SOURCE_UNSPECIFIED,
            "time_to_first_token_ms": None,
        }
        return self.call(**(failure | fields))

    def refused_call(self, **fields: Any) -> UsageRecord:
        """Refused by us before any attempt: 429, no model, no provider."""
        refusal: dict[str, Any] = {
            "outcome": OUTCOME_REFUSED,
            "status": 429,
            "error_type": "rate_limited",
            "model": "",
            "provider": "",
            "attempts": [],
        }
        return self.failed_call(**(refusal | fields))


class Books:
    """Writes organizations, keys and calls. Lives as long as a test."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._ingest = Ingest()
        self._discounts: list[Discount] = []
        prepare_session(connection)

    def organization(self, *, retention_days: int = 90, payload_retained: bool = False) -> str:
        organization_id = str(uuid4())
        plan = _PLANS.get(retention_days, 3)
        self._connection.execute(
            """
            INSERT INTO ledger.organization
                   (organization_id, display_name, plan, retention_days, payload_retained, create_time)
            VALUES (%s, 'Acme', %s, %s, %s, %s)
            """,
            (organization_id, plan, retention_days, payload_retained, _LONG_AGO),
        )
        self._keep_plan(organization_id, plan, retention_days, _LONG_AGO)
        return organization_id

    def change_retention(self, organization_id: str, retention_days: int, at: datetime) -> None:
        """As a change of plan does it."""
        plan = _PLANS.get(retention_days, 3)
        self._connection.execute(
            "UPDATE ledger.organization SET plan = %s, retention_days = %s WHERE organization_id = %s",
            (plan, retention_days, organization_id),
        )
        self._keep_plan(organization_id, plan, retention_days, at)

    def _keep_plan(self, organization_id: str, plan: int, retention_days: int, valid_from: datetime) -> None:
        self._connection.execute(
            """
            INSERT INTO ledger.organization_plan (organization_id, valid_from, plan, retention_days)
            VALUES (%s, %s, %s, %s)
            """,
            (organization_id, valid_from, plan, retention_days),
        )

    def project(self, organization_id: str, project_id: str = "web") -> str:
        self._connection.execute(
            "INSERT INTO ledger.project (organization_id, project_id, mode, create_time) VALUES (%s, %s, 1, %s)",
            (organization_id, project_id, _LONG_AGO),
        )
        return project_id

    def key(self, organization_id: str | None, project_id: str | None = None, *, read_only: bool = False) -> Key:
        """An operator's key without an organization."""
        key = Key(f"tg_{uuid4()}", str(uuid4()))
        scope = Scope.OPERATOR if organization_id is None else Scope.PROJECT if project_id else Scope.ORGANIZATION
        self._connection.execute(
            """
            INSERT INTO ledger.api_key
                   (key_hash, api_key_id, scope, organization_id, project_id, read_only, display_name, create_time)
            VALUES (%s, %s, %s, %s, %s, %s, '', %s)
            """,
            (hash_key(key.secret), key.api_key_id, scope, organization_id, project_id, read_only, _LONG_AGO),
        )
        return key

    def customer(self, *, retention_days: int = 90, payload_retained: bool = False) -> Customer:
        organization_id = self.organization(retention_days=retention_days, payload_retained=payload_retained)
        self.project(organization_id)
        return Customer(organization_id, self.key(organization_id))

    def discount(self, organization_id: str, fraction: str) -> None:
        """At openai, from now on."""
        self._discounts.append(
            Discount(
                discount_id=len(self._discounts) + 1,
                organization_id=organization_id,
                provider="openai",
                model=None,
                fraction=Decimal(fraction),
                valid_from=_LONG_AGO,
                valid_to=None,
            )
        )

    def record(self, *calls: UsageRecord, receipt_time: datetime | None = None) -> None:
        """Records each call as if it had been sent when it was over, or when told."""
        for call in calls:
            self._record(call, receipt_time or call.start_time.ToDatetime(UTC) + timedelta(minutes=1))

    def _record(self, call: UsageRecord, receipt_time: datetime) -> None:
        delivery = delivery_from_proto(RecordUsageRequest(records=[call]), receipt_time)
        (received,) = delivery.received
        assert received.record is not None, received.problem
        received.priced = priced(received.record, PriceBook(PRICE_VERSIONS, self._discounts))
        outcome = self._ingest.record(self._connection, prepare([delivery]), receipt_time)
        assert isinstance(outcome, Outcome), outcome
        assert not outcome.settled


@contextmanager
def open_books(database: Database) -> Iterator[Books]:
    with psycopg.connect(database.ledger_url, autocommit=True, options="-c timezone=UTC") as connection:
        yield Books(connection)
