"""A ledger with nothing but accounts and alert rules, on a real channel over a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from sqlalchemy.ext.asyncio import AsyncConnection

from development.addresses import Addresses
from services.common.database import open_database
from services.common.grpc_client import service_metadata
from services.common.grpc_server import GrpcServer, ServerSettings, Service
from services.common.key_store import DatabaseKeyDirectory
from services.common.uuid7 import new_uuid7
from services.ledger.accounts.account_keeping import AccountKeeper
from services.ledger.accounts.account_reading import AccountReader
from services.ledger.accounts.directory import Directory
from services.ledger.accounts.directory_changes import DirectoryChanges
from services.ledger.accounts.key_keeping import KeyKeeper
from services.ledger.accounts.keys import new_api_key_secret
from services.ledger.accounts.servicer_accounts import AccountServicer
from services.ledger.accounts.servicer_directory import DirectoryServicer
from services.ledger.alerts.alert_keeping import AlertKeeper
from services.ledger.alerts.alert_reading import AlertReader
from services.ledger.alerts.servicer_alerts import AlertServicer
from services.ledger.alerts.webhook_secrets import KEY_BYTES, WebhookSecrets
from services.ledger.alerts.webhook_urls import WebhookPolicy
from tests.conftest import Database
from tollgate.ledger.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    directory_service_pb2,
    directory_service_pb2_grpc,
)
from tollgate.ledger.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    CreateOrganizationRequest,
    CreateProjectRequest,
    RevokeApiKeyRequest,
)

SERVICE_TOKEN = "inside"
OPERATOR_KEY = "tg_operator-for-tests"
Metadata = tuple[tuple[str, str], ...]


def bearer(secret: str) -> Metadata:
    return (("authorization", f"Bearer {secret}"),)


OPERATOR = bearer(OPERATOR_KEY)
INSIDE = service_metadata(SERVICE_TOKEN)
WEBHOOK_KEY = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call failed."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]


async def refusal_of(call: Any) -> Refusal:
    """Fails the test unless the call fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert status is not None, error
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        return Refusal(error.code(), info.reason, status.message, dict(info.metadata))
    raise AssertionError("the call was not refused")


@dataclass(frozen=True, slots=True)
class Ledger:
    """Its stubs, and what the tests of it know."""

    accounts: Any
    alerts: Any
    directory: Any
    router_private_key: X25519PrivateKey
    in_credit: set[UUID]
    address: str

    async def organization(self, **fields: Any) -> str:
        request = CreateOrganizationRequest(**{"display_name": "Acme", **fields})
        created = await self.accounts.CreateOrganization(request, metadata=OPERATOR, timeout=5)
        return str(created.organization.organization_id)

    async def project(self, organization_id: str, project_id: str = "web", **fields: Any) -> str:
        request = CreateProjectRequest(organization_id=organization_id, project_id=project_id, **fields)
        await self.accounts.CreateProject(request, metadata=OPERATOR, timeout=5)
        return project_id

    async def key(self, organization_id: str, **fields: Any) -> CreateApiKeyResponse:
        request = CreateApiKeyRequest(organization_id=organization_id, **fields)
        created: CreateApiKeyResponse = await self.accounts.CreateApiKey(request, metadata=OPERATOR, timeout=5)
        return created

    async def revoke(self, api_key_id: str) -> None:
        await self.accounts.RevokeApiKey(RevokeApiKeyRequest(api_key_id=api_key_id), metadata=OPERATOR, timeout=5)


@asynccontextmanager
async def running_ledger(database: Database, *, drain_seconds: int = 0) -> AsyncIterator[Ledger]:
    engine = open_database(database.ledger_url)
    private_key = X25519PrivateKey.generate()
    in_credit: set[UUID] = set()

    async def credit_available(connection: AsyncConnection, organization_id: UUID, now: datetime) -> bool:
        return organization_id in in_credit

    accounts = AccountKeeper(engine, clock=now_in_utc, new_id=new_uuid7)
    keys = KeyKeeper(
        engine, private_key.public_key(), clock=now_in_utc, new_id=new_uuid7, new_secret=new_api_key_secret
    )
    await keys.seed_operator_key(OPERATOR_KEY)
    directory = Directory(engine, credit_available, clock=now_in_utc)
    alerts = AlertKeeper(engine, WebhookSecrets(WEBHOOK_KEY), WebhookPolicy(), clock=now_in_utc, new_id=new_uuid7)
    changes = DirectoryChanges(engine, clock=now_in_utc)
    settings = ServerSettings(
        listen_address=Addresses.free().ledger,
        service_token=SERVICE_TOKEN,
        reflection=False,
        drain_seconds=drain_seconds,
    )
    server = GrpcServer(
        settings,
        DatabaseKeyDirectory(engine),
        [
            Service(
                account_service_pb2.DESCRIPTOR.services_by_name["AccountService"],
                account_service_pb2_grpc.add_AccountServiceServicer_to_server,
                AccountServicer(accounts, keys, AccountReader(engine)),
            ),
            Service(
                alert_service_pb2.DESCRIPTOR.services_by_name["AlertService"],
                alert_service_pb2_grpc.add_AlertServiceServicer_to_server,
                AlertServicer(alerts, AlertReader(engine, clock=now_in_utc)),
            ),
            Service(
                directory_service_pb2.DESCRIPTOR.services_by_name["DirectoryService"],
                directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server,
                DirectoryServicer(directory, changes),
                end_streams=changes.end,
            ),
        ],
    )
    await server.start()
    following = asyncio.create_task(changes.follow())
    try:
        async with grpc.aio.insecure_channel(settings.listen_address) as channel:
            yield Ledger(
                account_service_pb2_grpc.AccountServiceStub(channel),
                alert_service_pb2_grpc.AlertServiceStub(channel),
                directory_service_pb2_grpc.DirectoryServiceStub(channel),
                private_key,
                in_credit,
                settings.listen_address,
            )
    finally:
        await server.stop()
        following.cancel()
        await engine.dispose()


def now_in_utc() -> datetime:
    return datetime.now(UTC)
