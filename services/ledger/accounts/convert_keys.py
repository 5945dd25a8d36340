"""Keys and their bearers, wire ↔ domain."""

from datetime import datetime

from services.common.authentication import Scope
from services.ledger.accounts.convert_accounts import mode_to_proto
from services.ledger.accounts.convert_call_settings import (
    project_settings_to_proto,
    rate_limit_from_proto,
    rate_limit_to_proto,
)
from services.ledger.accounts.convert_spending import named_limit, spending_limit_to_proto
from services.ledger.accounts.directory import Bearer
from services.ledger.accounts.keys import (
    ApiKey,
    ApiKeyChange,
    NewApiKey,
    NewProviderKey,
    ProviderKey,
)
from services.ledger.convert_values import (
    choice,
    optional_time_to_proto,
    scope_to_proto,
    time_from_proto,
    time_to_proto,
)
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2


def new_api_key_from_proto(request: account_service_pb2.CreateApiKeyRequest) -> NewApiKey:
    default = Scope.PROJECT if request.project_id else Scope.ORGANIZATION
    return NewApiKey(
        scope=choice("scope", Scope, request.scope, default=default),
        organization_id=request.organization_id,
        project_id=request.project_id or None,
        display_name=request.display_name,
        read_only=request.read_only,
        expire_time=_expire_time(request),
        spending_limit=named_limit(request),
        rate_limit=rate_limit_from_proto(request.rate_limit),
    )


def api_key_change_from_proto(request: account_service_pb2.UpdateApiKeyRequest) -> ApiKeyChange:
    return ApiKeyChange(
        display_name=request.display_name if request.HasField("display_name") else None,
        expire_time=_expire_time(request),
        spending_limit=named_limit(request),
        clear_spending_limit=request.clear_spending_limit,
        rate_limit=rate_limit_from_proto(request.rate_limit) if request.HasField("rate_limit") else None,
    )


def api_key_to_proto(key: ApiKey) -> account_service_pb2.ApiKey:
    return account_service_pb2.ApiKey(
        api_key_id=str(key.api_key_id),
        display_name=key.display_name,
        scope=scope_to_proto(key.scope),
        organization_id="" if key.organization_id is None else str(key.organization_id),
        project_id=key.project_id or "",
        read_only=key.read_only,
        create_time=time_to_proto(key.create_time),
        expire_time=optional_time_to_proto(key.expire_time),
        revoke_time=optional_time_to_proto(key.revoke_time),
        spending_limit=spending_limit_to_proto(key.spending_limit),
        rate_limit=rate_limit_to_proto(key.rate_limit),
    )


def new_provider_key_from_proto(request: account_service_pb2.SetProviderKeyRequest) -> NewProviderKey:
    return NewProviderKey(organization_id=request.organization_id, provider=request.provider, secret=request.secret)


def provider_key_to_proto(key: ProviderKey) -> account_service_pb2.ProviderKey:
    return account_service_pb2.ProviderKey(
        organization_id=str(key.organization_id), provider=key.provider, update_time=time_to_proto(key.update_time)
    )


def bearer_to_proto(bearer: Bearer) -> directory_service_pb2.ResolveKeyResponse:
    key = bearer.api_key
    return directory_service_pb2.ResolveKeyResponse(
        api_key_id=str(key.api_key_id),
        scope=scope_to_proto(key.scope),
        read_only=key.read_only,
        expire_time=optional_time_to_proto(key.expire_time),
        organization_id="" if key.organization_id is None else str(key.organization_id),
        project_id=bearer.project_id or "",
        project_mode=mode_to_proto(bearer.project_mode),
        payload_retained=bearer.payload_retained,
        provider_keys=[
            directory_service_pb2.SealedProviderKey(provider=provider, sealed_secret=sealed_secret)
            for provider, sealed_secret in bearer.sealed_secrets.items()
        ],
        credit_available=bearer.credit_available,
        spending_limit=spending_limit_to_proto(key.spending_limit),
        project_settings=project_settings_to_proto(bearer.call_settings),
        rate_limit=rate_limit_to_proto(key.rate_limit),
    )


def _expire_time(
    request: account_service_pb2.CreateApiKeyRequest | account_service_pb2.UpdateApiKeyRequest,
) -> datetime | None:
    return time_from_proto("expire_time", request.expire_time) if request.HasField("expire_time") else None
