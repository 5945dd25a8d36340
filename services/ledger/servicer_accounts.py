"""Speaks the wire for the account keeper."""

from typing import Any

from services.common.grpc_calls import current_caller
from services.ledger.account_keeping import AccountKeeper
from services.ledger.convert_accounts import (
    api_key_to_proto,
    new_api_key_from_proto,
    new_organization_from_proto,
    new_project_from_proto,
    new_provider_key_from_proto,
    organization_to_proto,
    project_to_proto,
    provider_key_to_proto,
)
from tollgate.ledger.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    CreateOrganizationRequest,
    CreateOrganizationResponse,
    CreateProjectRequest,
    CreateProjectResponse,
    RevokeApiKeyRequest,
    RevokeApiKeyResponse,
    SetProviderKeyRequest,
    SetProviderKeyResponse,
)
from tollgate.ledger.v1.account_service_pb2_grpc import AccountServiceServicer


class AccountServicer(AccountServiceServicer):
    """`AccountService`."""

    def __init__(self, accounts: AccountKeeper) -> None:
        self._accounts = accounts

    async def CreateOrganization(self, request: CreateOrganizationRequest, context: Any) -> CreateOrganizationResponse:
        new = new_organization_from_proto(request)
        organization = await self._accounts.create_organization(current_caller(), new)
        return CreateOrganizationResponse(organization=organization_to_proto(organization))

    async def CreateProject(self, request: CreateProjectRequest, context: Any) -> CreateProjectResponse:
        project = await self._accounts.create_project(current_caller(), new_project_from_proto(request))
        return CreateProjectResponse(project=project_to_proto(project))

    async def CreateApiKey(self, request: CreateApiKeyRequest, context: Any) -> CreateApiKeyResponse:
        key, secret = await self._accounts.create_api_key(current_caller(), new_api_key_from_proto(request))
        return CreateApiKeyResponse(api_key=api_key_to_proto(key), secret=secret)

    async def RevokeApiKey(self, request: RevokeApiKeyRequest, context: Any) -> RevokeApiKeyResponse:
        key = await self._accounts.revoke_api_key(current_caller(), request.api_key_id)
        return RevokeApiKeyResponse(api_key=api_key_to_proto(key))

    async def SetProviderKey(self, request: SetProviderKeyRequest, context: Any) -> SetProviderKeyResponse:
        key = await self._accounts.set_provider_key(current_caller(), new_provider_key_from_proto(request))
        return provider_key_to_proto(key)
