"""The ledger as it is wired, on a real channel over a real database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from development.addresses import Addresses
from services.common.database import open_database
from services.common.grpc_server import GrpcServer, ServerSettings
from services.common.key_store import DatabaseKeyDirectory
from services.ledger.alerts.webhook_urls import WebhookPolicy
from services.ledger.settings import Settings
from services.ledger.wiring import running_services
from tests.conftest import Database
from tests.contract.ledger.accounts_server import (
    OPERATOR,
    OPERATOR_KEY,
    SERVICE_TOKEN,
    WEBHOOK_KEY,
    Metadata,
    bearer,
)
from tollgate.ledger.v1.account_service_pb2 import CreateApiKeyRequest, CreateOrganizationRequest
from tollgate.ledger.v1.account_service_pb2_grpc import AccountServiceStub
from tollgate.ledger.v1.alert_service_pb2_grpc import AlertServiceStub
from tollgate.ledger.v1.billing_service_pb2_grpc import BillingServiceStub
from tollgate.ledger.v1.credit_service_pb2_grpc import CreditServiceStub
from tollgate.ledger.v1.directory_service_pb2_grpc import DirectoryServiceStub
from tollgate.ledger.v1.import_service_pb2_grpc import ImportServiceStub
from tollgate.ledger.v1.price_service_pb2_grpc import PriceServiceStub
from tollgate.ledger.v1.usage_service_pb2_grpc import UsageServiceStub


@dataclass(frozen=True, slots=True)
class WholeLedger:
    """Its stubs."""

    accounts: Any
    alerts: Any
    billing: Any
    credit: Any
    directory: Any
    imports: Any
    prices: Any
    usage: Any

    async def organization(self) -> str:
        request = CreateOrganizationRequest(display_name="Acme")
        created = await self.accounts.CreateOrganization(request, metadata=OPERATOR, timeout=5)
        return str(created.organization.organization_id)

    async def key_of(self, organization_id: str) -> Metadata:
        """The metadata of a caller with a key of the organization."""
        request = CreateApiKeyRequest(organization_id=organization_id)
        created = await self.accounts.CreateApiKey(request, metadata=OPERATOR, timeout=5)
        return bearer(created.secret)


@asynccontextmanager
async def a_whole_ledger(database: Database) -> AsyncIterator[WholeLedger]:
    addresses = Addresses.free()
    settings = Settings(
        server=ServerSettings(
            listen_address=addresses.ledger, service_token=SERVICE_TOKEN, reflection=False, drain_seconds=1
        ),
        database_url=database.ledger_url,
        metrics_address=addresses.ledger_metrics,
        log_level="INFO",
        operator_key=OPERATOR_KEY,
        provider_key_public=X25519PrivateKey.generate().public_key(),
        alert_interval=timedelta(seconds=1),
        webhook_key=WEBHOOK_KEY,
        webhook_policy=WebhookPolicy(http_allowed=True, private_allowed=True),
        webhook_timeout=timedelta(seconds=2),
    )
    engine = open_database(settings.database_url)
    try:
        async with running_services(settings, engine) as services:
            server = GrpcServer(settings.server, DatabaseKeyDirectory(engine), services)
            await server.start()
            async with grpc.aio.insecure_channel(addresses.ledger) as channel:
                yield WholeLedger(
                    AccountServiceStub(channel),
                    AlertServiceStub(channel),
                    BillingServiceStub(channel),
                    CreditServiceStub(channel),
                    DirectoryServiceStub(channel),
                    ImportServiceStub(channel),
                    PriceServiceStub(channel),
                    UsageServiceStub(channel),
                )
            await server.stop()
    finally:
        await engine.dispose()
