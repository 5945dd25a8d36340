from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.authentication import Scope
from services.common.errors import InvalidRequestError
from services.ledger.accounts.accounts import Plan, ProjectMode
from services.ledger.accounts.audit import AuditEntry
from services.ledger.accounts.convert_accounts import (
    new_organization_from_proto,
    new_project_from_proto,
    organization_change_from_proto,
    project_change_from_proto,
)
from services.ledger.accounts.convert_audit import audit_entry_to_proto, audit_filter_from_proto
from services.ledger.accounts.convert_keys import api_key_change_from_proto, new_api_key_from_proto
from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod
from tollgate.access.v1 import access_pb2
from tollgate.ledger.v1 import account_service_pb2, directory_service_pb2
from tollgate.ledger.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    CreateOrganizationRequest,
    CreateProjectRequest,
    ListAuditEntriesRequest,
    UpdateApiKeyRequest,
    UpdateOrganizationRequest,
    UpdateProjectRequest,
)


@pytest.mark.parametrize(
    ("ours", "contract", "prefix"),
    [
        (Plan, account_service_pb2.Plan, "PLAN"),
        (ProjectMode, directory_service_pb2.ProjectMode, "PROJECT_MODE"),
        (Scope, access_pb2.Scope, "SCOPE"),
        (SpendingPeriod, directory_service_pb2.SpendingPeriod, "SPENDING_PERIOD"),
    ],
    ids=["plans", "project modes", "scopes", "spending periods"],
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


def test_a_change_tells_what_is_left_out_from_what_is_empty() -> None:
    name_only = organization_change_from_proto(UpdateOrganizationRequest(display_name="Acme"))
    bodies_only = organization_change_from_proto(UpdateOrganizationRequest(payload_retained=False))
    unarchive = project_change_from_proto(UpdateProjectRequest(archived=False))
    unnamed = api_key_change_from_proto(UpdateApiKeyRequest(display_name=""))

    assert (name_only.display_name, name_only.plan, name_only.payload_retained) == ("Acme", None, None)
    assert (bodies_only.display_name, bodies_only.payload_retained) == (None, False)
    assert (unarchive.mode, unarchive.archived) == (None, False)
    assert (unnamed.display_name, unnamed.spending_limit, unnamed.expire_time) == ("", None, None)


def test_zero_is_no_choice_where_a_change_names_one() -> None:
    with pytest.raises(InvalidRequestError, match=r"^plan "):
        organization_change_from_proto(UpdateOrganizationRequest(plan=account_service_pb2.PLAN_UNSPECIFIED))
    with pytest.raises(InvalidRequestError, match=r"^mode "):
        project_change_from_proto(UpdateProjectRequest(mode=directory_service_pb2.PROJECT_MODE_UNSPECIFIED))


def test_a_limit_says_how_much_and_how_often() -> None:
    limit = directory_service_pb2.SpendingLimit(amount="0.50", period=directory_service_pb2.SPENDING_PERIOD_MONTH)

    new = new_api_key_from_proto(CreateApiKeyRequest(spending_limit=limit))

    assert new.spending_limit == SpendingLimit(5 * 10**11, SpendingPeriod.MONTH)
    with pytest.raises(InvalidRequestError, match=r"^spending_limit\.period "):
        new_api_key_from_proto(CreateApiKeyRequest(spending_limit=directory_service_pb2.SpendingLimit(amount="0.50")))
    with pytest.raises(InvalidRequestError, match=r"^spending_limit\.(amount|period) "):
        api_key_change_from_proto(UpdateApiKeyRequest(spending_limit=directory_service_pb2.SpendingLimit()))


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"api_key_id": "abc"}, "api_key_id"),
        ({"action": "DROP TABLE"}, "action"),
        ({"subject": "nul\0"}, "subject"),
        ({"subject": "x" * 129}, "subject"),
        ({"from_time": "yesterday"}, "from"),
        ({"from_time": "2026-03-01"}, "from"),
        ({"to_time": "2026-03-01T00:00:00"}, "to"),
        ({"from_time": "2026-03-02T00:00:00Z", "to_time": "2026-03-01T00:00:00Z"}, "to"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(fields: dict[str, str], parameter: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{parameter} "):
        audit_filter_from_proto(ListAuditEntriesRequest(**fields))


def test_a_filter_takes_a_time_with_any_offset() -> None:
    wanted = audit_filter_from_proto(ListAuditEntriesRequest(from_time="2026-03-01T02:00:00.5+02:00"))

    assert wanted.from_time == datetime(2026, 3, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert (wanted.to_time, wanted.action, wanted.subject, wanted.api_key_id) == (None, None, None, None)


def test_what_a_change_replaced_is_free_form_json() -> None:
    entry = AuditEntry(
        audit_id=UUID(int=1),
        create_time=datetime(2026, 3, 1, tzinfo=UTC),
        organization_id=None,
        actor_scope=Scope.SERVICE,
        actor_api_key_id=None,
        action="api_key.create",
        subject="x",
        after={"scope": "OPERATOR", "retention_days": 90, "read_only": False, "expire_time": None},
    )

    sent = audit_entry_to_proto(entry)

    assert dict(sent.after) == {"scope": "OPERATOR", "retention_days": 90, "read_only": False, "expire_time": None}
    assert sent.HasField("before")
    assert dict(sent.before) == {}
    assert (sent.organization_id, sent.actor_api_key_id) == ("", "")
