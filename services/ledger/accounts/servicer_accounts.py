"""Speaks the wire for accounts: what is read, what is changed."""

from typing import Any

from services.common.grpc_calls import current_caller
from services.ledger.accounts.account_keeping import AccountKeeper
from services.ledger.accounts.account_reading import AccountReader
from services.ledger.accounts.convert_accounts import (
    new_organization_from_proto,
    new_project_from_proto,
    organization_change_from_proto,
    organization_to_proto,
    project_change_from_proto,
    project_to_proto,
)
from services.ledger.accounts.convert_audit import audit_entry_to_proto, audit_filter_from_proto
from services.ledger.accounts.convert_keys import (
    api_key_change_from_proto,
    api_key_to_proto,
    new_api_key_from_proto,
    new_provider_key_from_proto,
    provider_key_to_proto,
)
from services.ledger.accounts.key_keeping import KeyKeeper
from services.ledger.convert_values import time_to_proto
from tollgate.ledger.v1 import account_service_pb2 as wire
from tollgate.ledger.v1.account_service_pb2_grpc import AccountServiceServicer


class AccountServicer(AccountServiceServicer):
    """`AccountService`."""

    def __init__(self, accounts: AccountKeeper, keys: KeyKeeper, reader: AccountReader) -> None:
        self._accounts = accounts
        self._keys = keys
        self._reader = reader

    # Organizations

    async def CreateOrganization(
        self, request: wire.CreateOrganizationRequest, context: Any
    ) -> wire.CreateOrganizationResponse:
        new = new_organization_from_proto(request)
        organization = await self._accounts.create_organization(current_caller(), new)
        return wire.CreateOrganizationResponse(organization=organization_to_proto(organization))

    async def GetOrganization(self, request: wire.GetOrganizationRequest, context: Any) -> wire.GetOrganizationResponse:
        organization = await self._reader.organization(current_caller(), request.organization_id)
        return wire.GetOrganizationResponse(organization=organization_to_proto(organization))

    async def ListOrganizations(
        self, request: wire.ListOrganizationsRequest, context: Any
    ) -> wire.ListOrganizationsResponse:
        page = await self._reader.list_organizations(limit=request.limit, page_token=request.page_token)
        return wire.ListOrganizationsResponse(
            organizations=map(organization_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def UpdateOrganization(
        self, request: wire.UpdateOrganizationRequest, context: Any
    ) -> wire.UpdateOrganizationResponse:
        change = organization_change_from_proto(request)
        organization = await self._accounts.update_organization(current_caller(), request.organization_id, change)
        return wire.UpdateOrganizationResponse(organization=organization_to_proto(organization))

    # Projects

    async def CreateProject(self, request: wire.CreateProjectRequest, context: Any) -> wire.CreateProjectResponse:
        project = await self._accounts.create_project(current_caller(), new_project_from_proto(request))
        return wire.CreateProjectResponse(project=project_to_proto(project))

    async def GetProject(self, request: wire.GetProjectRequest, context: Any) -> wire.GetProjectResponse:
        project = await self._reader.project(current_caller(), request.organization_id, request.project_id)
        return wire.GetProjectResponse(project=project_to_proto(project))

    async def ListProjects(self, request: wire.ListProjectsRequest, context: Any) -> wire.ListProjectsResponse:
        page = await self._reader.list_projects(
            current_caller(), request.organization_id, limit=request.limit, page_token=request.page_token
        )
        return wire.ListProjectsResponse(
            projects=map(project_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def UpdateProject(self, request: wire.UpdateProjectRequest, context: Any) -> wire.UpdateProjectResponse:
        change = project_change_from_proto(request)
        project = await self._accounts.update_project(
            current_caller(), request.organization_id, request.project_id, change
        )
        return wire.UpdateProjectResponse(project=project_to_proto(project))

    # API keys

    async def CreateApiKey(self, request: wire.CreateApiKeyRequest, context: Any) -> wire.CreateApiKeyResponse:
        key, secret = await self._keys.create_api_key(current_caller(), new_api_key_from_proto(request))
        return wire.CreateApiKeyResponse(api_key=api_key_to_proto(key), secret=secret)

    async def GetApiKey(self, request: wire.GetApiKeyRequest, context: Any) -> wire.GetApiKeyResponse:
        key = await self._reader.api_key(current_caller(), request.api_key_id)
        return wire.GetApiKeyResponse(api_key=api_key_to_proto(key))

    async def ListApiKeys(self, request: wire.ListApiKeysRequest, context: Any) -> wire.ListApiKeysResponse:
        page = await self._reader.list_api_keys(
            current_caller(),
            request.organization_id,
            request.project_id,
            limit=request.limit,
            page_token=request.page_token,
        )
        return wire.ListApiKeysResponse(
            api_keys=map(api_key_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def UpdateApiKey(self, request: wire.UpdateApiKeyRequest, context: Any) -> wire.UpdateApiKeyResponse:
        change = api_key_change_from_proto(request)
        key = await self._keys.update_api_key(current_caller(), request.api_key_id, change)
        return wire.UpdateApiKeyResponse(api_key=api_key_to_proto(key))

    async def RevokeApiKey(self, request: wire.RevokeApiKeyRequest, context: Any) -> wire.RevokeApiKeyResponse:
        key = await self._keys.revoke_api_key(current_caller(), request.api_key_id)
        return wire.RevokeApiKeyResponse(api_key=api_key_to_proto(key))

    # Own provider keys

    async def SetProviderKey(self, request: wire.SetProviderKeyRequest, context: Any) -> wire.SetProviderKeyResponse:
        key = await self._keys.set_provider_key(current_caller(), new_provider_key_from_proto(request))
        return wire.SetProviderKeyResponse(
            organization_id=str(key.organization_id), provider=key.provider, update_time=time_to_proto(key.update_time)
        )

    async def ListProviderKeys(
        self, request: wire.ListProviderKeysRequest, context: Any
    ) -> wire.ListProviderKeysResponse:
        page = await self._reader.list_provider_keys(
            current_caller(), request.organization_id, limit=request.limit, page_token=request.page_token
        )
        return wire.ListProviderKeysResponse(
            provider_keys=map(provider_key_to_proto, page.items), next_page_token=page.next_page_token
        )

    async def DeleteProviderKey(
        self, request: wire.DeleteProviderKeyRequest, context: Any
    ) -> wire.DeleteProviderKeyResponse:
        await self._keys.delete_provider_key(current_caller(), request.organization_id, request.provider)
        return wire.DeleteProviderKeyResponse()

    # The audit log

    async def ListAuditEntries(
        self, request: wire.ListAuditEntriesRequest, context: Any
    ) -> wire.ListAuditEntriesResponse:
        page = await self._reader.list_audit_entries(
            current_caller(),
            request.organization_id,
            audit_filter_from_proto(request),
            limit=request.limit,
            page_token=request.page_token,
        )
        return wire.ListAuditEntriesResponse(
            audit_entries=map(audit_entry_to_proto, page.items), next_page_token=page.next_page_token
        )
