from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError
from services.ledger.accounts import Plan, ProjectMode
from services.ledger.convert_accounts import (
    new_api_key_from_proto,
    new_organization_from_proto,
    new_project_from_proto,
)
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2
from tollgate.ledger.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    CreateOrganizationRequest,
    CreateProjectRequest,
)


@pytest.mark.parametrize(
    ("ours", "contract", "prefix"),
    [
        (Plan, account_service_pb2.Plan, "PLAN"),
        (ProjectMode, directory_service_pb2.ProjectMode, "PROJECT_MODE"),
        (Scope, access_pb2.Scope, "SCOPE"),
    ],
    ids=["plans", "project modes", "scopes"],
)
def test_our_numbers_are_those_of_the_contract(ours: type[IntEnum], contract: Any, prefix: str) -> None:
    named = {f"{prefix}_{choice.name}": choice.value for choice in ours}

    assert {f"{prefix}_UNSPECIFIED": 0, **named} == dict(contract.items())


def test_what_is_left_out_of_an_organization_is_free_and_retains_nothing() -> None:
    new = new_organization_from_proto(CreateOrganizationRequest(display_name="Acme"))

    assert (new.plan, new.retention_days, new.payload_retained) == (Plan.FREE, 3, False)


def test_a_project_pays_from_credits_unless_it_says_otherwise() -> None:
    assert new_project_from_proto(CreateProjectRequest(project_id="web")).mode is ProjectMode.CREDITS


def test_a_key_that_names_a_project_is_a_project_key_unless_it_says_otherwise() -> None:
    assert new_api_key_from_proto(CreateApiKeyRequest(project_id="web")).scope is Scope.PROJECT
    assert new_api_key_from_proto(CreateApiKeyRequest()).scope is Scope.ORGANIZATION


def test_an_expiry_is_taken_to_the_microsecond() -> None:
    expire_time = Timestamp(seconds=1_800_000_000, nanos=123_456_000)

    new = new_api_key_from_proto(CreateApiKeyRequest(expire_time=expire_time))

    assert new.expire_time == datetime(2027, 1, 15, 8, 0, 0, 123_456, tzinfo=UTC)
    assert new_api_key_from_proto(CreateApiKeyRequest()).expire_time is None


@pytest.mark.parametrize("seconds", [253_402_300_800, -62_135_596_801, 2**62])
def test_an_expiry_beyond_the_calendar_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"^expire_time "):
        new_api_key_from_proto(CreateApiKeyRequest(expire_time=Timestamp(seconds=seconds)))


def test_choices_of_a_newer_contract_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"^plan "):
        new_organization_from_proto(CreateOrganizationRequest(display_name="Acme", plan=9))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"^mode "):
        new_project_from_proto(CreateProjectRequest(project_id="web", mode=9))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"^scope "):
        new_api_key_from_proto(CreateApiKeyRequest(scope=9))  # type: ignore[arg-type]
