"""Accounts and bearers, wire ↔ domain."""

from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError
from services.ledger.accounts import (
    ApiKey,
    NewApiKey,
    NewOrganization,
    NewProject,
    NewProviderKey,
    Organization,
    Plan,
    Project,
    ProjectMode,
    ProviderKey,
)
from services.ledger.directory import Bearer
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2

Choice = TypeVar("Choice", Plan, ProjectMode, Scope)


def new_organization_from_proto(request: account_service_pb2.CreateOrganizationRequest) -> NewOrganization:
    return NewOrganization(
        display_name=request.display_name,
        plan=_choice("plan", Plan, request.plan, default=Plan.FREE),
        retention_days_agreed=request.retention_days or None,
        payload_retained=request.payload_retained,
    )


def organization_to_proto(organization: Organization) -> account_service_pb2.Organization:
    return account_service_pb2.Organization(
        organization_id=str(organization.organization_id),
        display_name=organization.display_name,
        plan=account_service_pb2.Plan.Value(f"PLAN_{organization.plan.name}"),
        retention_days=organization.retention_days,
        payload_retained=organization.payload_retained,
        create_time=_time_to_proto(organization.create_time),
    )


def new_project_from_proto(request: account_service_pb2.CreateProjectRequest) -> NewProject:
    return NewProject(
        organization_id=request.organization_id,
        project_id=request.project_id,
        mode=_choice("mode", ProjectMode, request.mode, default=ProjectMode.CREDITS),
    )


def project_to_proto(project: Project) -> account_service_pb2.Project:
    return account_service_pb2.Project(
        organization_id=str(project.organization_id),
        project_id=project.project_id,
        mode=_mode_to_proto(project.mode),
        create_time=_time_to_proto(project.create_time),
    )


def new_api_key_from_proto(request: account_service_pb2.CreateApiKeyRequest) -> NewApiKey:
    default = Scope.PROJECT if request.project_id else Scope.ORGANIZATION
    return NewApiKey(
        scope=_choice("scope", Scope, request.scope, default=default),
        organization_id=request.organization_id,
        project_id=request.project_id or None,
        display_name=request.display_name,
        read_only=request.read_only,
        expire_time=_time_from_proto("expire_time", request.expire_time) if request.HasField("expire_time") else None,
    )


def api_key_to_proto(key: ApiKey) -> account_service_pb2.ApiKey:
    return account_service_pb2.ApiKey(
        api_key_id=str(key.api_key_id),
        display_name=key.display_name,
        scope=_scope_to_proto(key.scope),
        organization_id="" if key.organization_id is None else str(key.organization_id),
        project_id=key.project_id or "",
        read_only=key.read_only,
        create_time=_time_to_proto(key.create_time),
        expire_time=_optional_time_to_proto(key.expire_time),
        revoke_time=_optional_time_to_proto(key.revoke_time),
    )


def new_provider_key_from_proto(request: account_service_pb2.SetProviderKeyRequest) -> NewProviderKey:
    return NewProviderKey(organization_id=request.organization_id, provider=request.provider, secret=request.secret)


def provider_key_to_proto(key: ProviderKey) -> account_service_pb2.SetProviderKeyResponse:
    return account_service_pb2.SetProviderKeyResponse(
        organization_id=str(key.organization_id), provider=key.provider, update_time=_time_to_proto(key.update_time)
    )


def bearer_to_proto(bearer: Bearer) -> directory_service_pb2.ResolveKeyResponse:
    key = bearer.api_key
    return directory_service_pb2.ResolveKeyResponse(
        api_key_id=str(key.api_key_id),
        scope=_scope_to_proto(key.scope),
        read_only=key.read_only,
        expire_time=_optional_time_to_proto(key.expire_time),
        organization_id="" if key.organization_id is None else str(key.organization_id),
        project_id=bearer.project_id or "",
        project_mode=_mode_to_proto(bearer.project_mode),
        payload_retained=bearer.payload_retained,
        provider_keys=[
            directory_service_pb2.SealedProviderKey(provider=provider, sealed_secret=sealed_secret)
            for provider, sealed_secret in bearer.sealed_secrets.items()
        ],
        credit_available=bearer.credit_available,
    )


def _mode_to_proto(mode: ProjectMode | None) -> directory_service_pb2.ProjectMode.ValueType:
    name = "UNSPECIFIED" if mode is None else mode.name
    return directory_service_pb2.ProjectMode.Value(f"PROJECT_MODE_{name}")


def _scope_to_proto(scope: Scope) -> access_pb2.Scope.ValueType:
    return access_pb2.Scope.Value(f"SCOPE_{scope.name}")


def _choice(field: str, choices: type[Choice], number: int, *, default: Choice) -> Choice:
    """The choice with this number; zero stands for the default, and numbers of a newer contract are refused."""
    if number == 0:
        return default
    try:
        return choices(number)
    except ValueError as error:
        raise InvalidRequestError(field, f"has no choice {number}") from error


def _time_from_proto(field: str, time: Timestamp) -> datetime:
    try:
        return time.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(field, "must be a time from the year 1 to the year 9999") from error


def _time_to_proto(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _optional_time_to_proto(time: datetime | None) -> Timestamp | None:
    return None if time is None else _time_to_proto(time)
