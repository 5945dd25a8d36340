"""A ledger that believes what tests tell it, over a real channel: `DirectoryService` and `UsageService`."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from google.protobuf.message import Message

from services.common.authentication import Caller, hash_key
from services.common.errors import InvalidApiKeyError
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.sealed_secrets import seal
from tests.integration.router.fake_credit import FakeCredit
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import credit_service_pb2, directory_service_pb2, price_service_pb2, usage_service_pb2
from tollgate.ledger.v1.credit_service_pb2_grpc import add_CreditServiceServicer_to_server
from tollgate.ledger.v1.directory_service_pb2 import (
    ResolveKeyRequest,
    ResolveKeyResponse,
    SealedProviderKey,
    WatchDirectoryRequest,
    WatchDirectoryResponse,
)
from tollgate.ledger.v1.directory_service_pb2_grpc import (
    DirectoryServiceServicer,
    add_DirectoryServiceServicer_to_server,
)
from tollgate.ledger.v1.price_service_pb2 import ListPricesRequest, ListPricesResponse, PriceVersion
from tollgate.ledger.v1.price_service_pb2_grpc import PriceServiceServicer, add_PriceServiceServicer_to_server
from tollgate.ledger.v1.usage_pb2 import UsageRecord
from tollgate.ledger.v1.usage_service_pb2 import RecordResult, RecordUsageRequest, RecordUsageResponse
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceServicer, add_UsageServiceServicer_to_server


def _price(provider: str, model: str, usd: str) -> PriceVersion:
    version = PriceVersion(provider=provider, model=model)
    for unit in (price_service_pb2.PRICE_UNIT_INPUT_TOKEN, price_service_pb2.PRICE_UNIT_OUTPUT_TOKEN):
        version.prices.unit_prices.add(unit=unit, price=usd)
    return version


PRICES = [
    _price("openai", "gpt-4o", "0.00001"),
    _price("openai", "gpt-4o-mini", "0.000001"),
    _price("azure", "gpt-4o", "0.000005"),
]
SERVICE_TOKEN = "service-token-of-the-tests"
RECORD_SECONDS_MAX = 10
# It says so often what has changed.
LOOK_SECONDS = 0.1
_numbers = itertools.count(1)


class NoKeys:
    """Only the router's service token opens this ledger."""

    async def find(self, key_hash: bytes) -> Caller | None:
        return None


class Prices(PriceServiceServicer):
    """Lists a few; publishes none."""

    async def ListPrices(self, request: ListPricesRequest, context: Any) -> ListPricesResponse:  # noqa: N802
        return ListPricesResponse(versions=[each for each in PRICES if each.provider == request.provider])


class FakeLedger(DirectoryServiceServicer, UsageServiceServicer):
    """Lives as long as the test session; may be stopped and started in between."""

    def __init__(self, address: str, provider_key_public: X25519PublicKey) -> None:
        self.address = address
        self.credit = FakeCredit()
        self._provider_key_public = provider_key_public
        self._grants: dict[bytes, ResolveKeyResponse] = {}
        self._records: dict[str, UsageRecord] = {}
        self._committed: dict[tuple[str, int], int] = {}
        self._arrived = asyncio.Condition()
        # How often it was asked about each key.
        self.asked: Counter[bytes] = Counter()
        # One set for each who listens.
        self._untold: list[set[str]] = []
        # False stands for a ledger that cannot say what changes.
        self.tells_changes = True
        self._is_stopping = False
        self._server: GrpcServer | None = None

    async def start(self) -> None:
        settings = ServerSettings(
            listen_address=self.address, service_token=SERVICE_TOKEN, reflection=False, drain_seconds=0
        )
        directory = directory_service_pb2.DESCRIPTOR.services_by_name["DirectoryService"]
        usage = usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"]
        prices = price_service_pb2.DESCRIPTOR.services_by_name["PriceService"]
        credit = credit_service_pb2.DESCRIPTOR.services_by_name["CreditService"]
        services = [
            Service(directory, add_DirectoryServiceServicer_to_server, self, end_streams=self._end_streams),
            Service(usage, add_UsageServiceServicer_to_server, self),
            Service(prices, add_PriceServiceServicer_to_server, Prices()),  # type: ignore[abstract]
            Service(credit, add_CreditServiceServicer_to_server, self.credit),
        ]
        self._is_stopping = False
        self._server = GrpcServer(settings, NoKeys(), services)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    def grant(self, *, own_keys: dict[str, str] | None = None, **said: Any) -> str:
        """A new key of a new organization, with credits and bound to the project `web` unless said otherwise."""
        grant = ResolveKeyResponse(
            api_key_id=str(uuid4()),
            organization_id=str(uuid4()),
            scope=access_pb2.SCOPE_PROJECT,
            project_id="web",
            project_mode=directory_service_pb2.PROJECT_MODE_CREDITS,
            credit_available=True,
        )
        for name, value in said.items():
            if isinstance(value, Message):
                getattr(grant, name).CopyFrom(value)
            else:
                setattr(grant, name, value)
        for provider, secret in (own_keys or {}).items():
            sealed = seal(secret, self._provider_key_public, organization_id=grant.organization_id, provider=provider)
            grant.provider_keys.append(SealedProviderKey(provider=provider, sealed_secret=sealed))
        key = f"tg_test_{next(_numbers)}"
        self._grants[hash_key(key)] = grant
        return key

    def organization_of(self, key: str) -> str:
        return self._grants[hash_key(key)].organization_id

    def revoke(self, key: str) -> None:
        grant = self._grants.pop(hash_key(key))
        for untold in self._untold:
            untold.add(grant.organization_id)

    def asked_about(self, key: str) -> int:
        return self.asked[hash_key(key)]

    def swap_organization(self, key: str) -> None:
        """Moves a key's grant, sealed secrets and all, to another organization."""
        self._grants[hash_key(key)].organization_id = str(uuid4())

    async def record(self, request_id: str) -> UsageRecord:
        """The record of a call, once it has arrived."""
        async with asyncio.timeout(RECORD_SECONDS_MAX), self._arrived:
            await self._arrived.wait_for(lambda: request_id in self._records)
        return self._records[request_id]

    async def records_of(self, key: str) -> list[UsageRecord]:
        """All records of a key's organization, once there is one."""
        organization_id = self._grants[hash_key(key)].organization_id

        def found() -> list[UsageRecord]:
            return [each for each in self._records.values() if each.organization_id == organization_id]

        async with asyncio.timeout(RECORD_SECONDS_MAX), self._arrived:
            await self._arrived.wait_for(lambda: bool(found()))
        return found()

    async def ResolveKey(self, request: ResolveKeyRequest, context: Any) -> ResolveKeyResponse:  # noqa: N802
        self.asked[request.key_hash] += 1
        grant = self._grants.get(request.key_hash)
        if grant is None:
            raise InvalidApiKeyError
        answer = ResolveKeyResponse()
        answer.CopyFrom(grant)
        answer.project_id = grant.project_id or request.project_id
        return answer

    async def WatchDirectory(  # noqa: N802
        self, request: WatchDirectoryRequest, context: Any
    ) -> AsyncIterator[WatchDirectoryResponse]:
        untold: set[str] = set()
        self._untold.append(untold)
        while self.tells_changes and not self._is_stopping:
            yield WatchDirectoryResponse(organization_ids=untold)
            untold.clear()
            await asyncio.sleep(LOOK_SECONDS)

    def _end_streams(self) -> None:
        self._is_stopping = True

    async def RecordUsage(self, request: RecordUsageRequest, context: Any) -> RecordUsageResponse:  # noqa: N802
        producer = (request.producer_id, request.epoch)
        response = RecordUsageResponse()
        for record in request.records:
            if record.sequence == self._committed.get(producer, 0) + 1:
                self._committed[producer] = record.sequence
                assert record.request_id not in self._records, "recorded twice"
                self._records[record.request_id] = record
                self.credit.settle(record)
            result = RecordResult(request_id=record.request_id, status=usage_service_pb2.RECORD_STATUS_RECORDED)
            response.results.append(result)
        response.committed_sequence = self._committed.get(producer, 0)
        async with self._arrived:
            self._arrived.notify_all()
        return response
