"""Organizations and projects, wire ↔ domain."""

from services.ledger.accounts.accounts import (
    NewOrganization,
    NewProject,
    Organization,
    OrganizationChange,
    Plan,
    Project,
    ProjectChange,
    ProjectMode,
)
from services.ledger.accounts.convert_call_settings import project_settings_from_proto, project_settings_to_proto
from services.ledger.accounts.convert_spending import named_limit, spending_limit_to_proto
from services.ledger.convert_values import choice, named_choice, optional_time_to_proto, time_to_proto
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2


def new_organization_from_proto(request: account_service_pb2.CreateOrganizationRequest) -> NewOrganization:
    return NewOrganization(
        display_name=request.display_name,
        plan=choice("plan", Plan, request.plan, default=Plan.FREE),
        retention_days_agreed=request.retention_days or None,
        payload_retained=request.payload_retained,
        spending_limit=named_limit(request),
    )


def organization_change_from_proto(request: account_service_pb2.UpdateOrganizationRequest) -> OrganizationChange:
    return OrganizationChange(
        display_name=request.display_name if request.HasField("display_name") else None,
        plan=named_choice("plan", Plan, request.plan) if request.HasField("plan") else None,
        retention_days_agreed=request.retention_days if request.HasField("retention_days") else None,
        payload_retained=request.payload_retained if request.HasField("payload_retained") else None,
        spending_limit=named_limit(request),
        clear_spending_limit=request.clear_spending_limit,
    )


def organization_to_proto(organization: Organization) -> account_service_pb2.Organization:
    return account_service_pb2.Organization(
        organization_id=str(organization.organization_id),
        display_name=organization.display_name,
        plan=account_service_pb2.Plan.Value(f"PLAN_{organization.plan.name}"),
        retention_days=organization.retention_days,
        payload_retained=organization.payload_retained,
        create_time=time_to_proto(organization.create_time),
        spending_limit=spending_limit_to_proto(organization.spending_limit),
    )


def new_project_from_proto(request: account_service_pb2.CreateProjectRequest) -> NewProject:
    return NewProject(
        organization_id=request.organization_id,
        project_id=request.project_id,
        mode=choice("mode", ProjectMode, request.mode, default=ProjectMode.CREDITS),
        call_settings=project_settings_from_proto(request.settings),
    )


def project_change_from_proto(request: account_service_pb2.UpdateProjectRequest) -> ProjectChange:
    return ProjectChange(
        mode=named_choice("mode", ProjectMode, request.mode) if request.HasField("mode") else None,
        archived=request.archived if request.HasField("archived") else None,
        call_settings=project_settings_from_proto(request.settings) if request.HasField("settings") else None,
    )


def project_to_proto(project: Project) -> account_service_pb2.Project:
    return account_service_pb2.Project(
        organization_id=str(project.organization_id),
        project_id=project.project_id,
        mode=mode_to_proto(project.mode),
        create_time=time_to_proto(project.create_time),
        archive_time=optional_time_to_proto(project.archive_time),
        settings=project_settings_to_proto(project.call_settings),
    )


def mode_to_proto(mode: ProjectMode | None) -> directory_service_pb2.ProjectMode.ValueType:
    name = "UNSPECIFIED" if mode is None else mode.name
    return directory_service_pb2.ProjectMode.Value(f"PROJECT_MODE_{name}")
