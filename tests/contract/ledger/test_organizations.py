from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.conftest import Database
from tests.contract.ledger.accounts_server import OPERATOR, Ledger, bearer, refusal_of, running_ledger
from tollgate.ledger.v1.account_service_pb2 import (
    PLAN_ENTERPRISE,
    PLAN_FREE,
    PLAN_PRO,
    PLAN_UNSPECIFIED,
    CreateOrganizationRequest,
    GetOrganizationRequest,
    ListOrganizationsRequest,
    Organization,
    UpdateOrganizationRequest,
)
from tollgate.ledger.v1.directory_service_pb2 import SPENDING_PERIOD_DAY, SPENDING_PERIOD_MONTH, SpendingLimit

UNKNOWN = "0199a000-0000-7000-8000-00000000dead"
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
HALF_A_DOLLAR_A_DAY = SpendingLimit(amount="0.5", period=SPENDING_PERIOD_DAY)


@pytest.fixture(scope="module")
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with running_ledger(database) as running:
        yield running


async def get(ledger: Ledger, organization_id: str, metadata: Any = OPERATOR) -> Organization:
    request = GetOrganizationRequest(organization_id=organization_id)
    answer: Organization = (await ledger.accounts.GetOrganization(request, metadata=metadata)).organization
    return answer


async def update(ledger: Ledger, organization_id: str, metadata: Any = OPERATOR, **settings: Any) -> Organization:
    request = UpdateOrganizationRequest(organization_id=organization_id, **settings)
    answer: Organization = (await ledger.accounts.UpdateOrganization(request, metadata=metadata)).organization
    return answer


async def test_an_organization_is_shown_to_operators_and_to_its_own_keys(ledger: Ledger) -> None:
    acme = await ledger.organization(display_name="Acme", plan=PLAN_PRO)
    own = bearer((await ledger.key(acme, read_only=True)).secret)

    for metadata in (OPERATOR, own):
        organization = await get(ledger, acme, metadata)

        assert (organization.organization_id, organization.display_name) == (acme, "Acme")
        assert (organization.plan, organization.retention_days) == (PLAN_PRO, 90)


@pytest.mark.parametrize("organization_id", [UNKNOWN, "acme", "", "x" * 100_000])
async def test_an_organization_that_does_not_exist_is_not_found(ledger: Ledger, organization_id: str) -> None:
    for call in (
        ledger.accounts.GetOrganization(GetOrganizationRequest(organization_id=organization_id), metadata=OPERATOR),
        ledger.accounts.UpdateOrganization(
            UpdateOrganizationRequest(organization_id=organization_id, display_name="x"), metadata=OPERATOR
        ),
    ):
        assert (await refusal_of(call)).code == MISSING


async def test_operators_see_all_organizations_page_by_page_newest_first(ledger: Ledger) -> None:
    made = [await ledger.organization() for _ in range(6)]

    seen: list[str] = []
    request = ListOrganizationsRequest(limit="2")
    while len(seen) < 6:
        answer = await ledger.accounts.ListOrganizations(request, metadata=OPERATOR)
        assert len(answer.organizations) == 2
        seen += [organization.organization_id for organization in answer.organizations]
        request.page_token = answer.next_page_token

    assert seen == made[::-1]


async def test_the_last_page_of_a_list_says_that_it_is(ledger: Ledger) -> None:
    await ledger.organization()

    answer = await ledger.accounts.ListOrganizations(ListOrganizationsRequest(limit="500"), metadata=OPERATOR)

    assert answer.organizations
    assert answer.next_page_token == ""


async def test_nobody_but_operators_lists_organizations(ledger: Ledger) -> None:
    own = bearer((await ledger.key(await ledger.organization())).secret)

    refusal = await refusal_of(ledger.accounts.ListOrganizations(ListOrganizationsRequest(), metadata=own))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [({"limit": "501"}, "limit"), ({"limit": "x"}, "limit"), ({"page_token": "x"}, "page_token")],
)
async def test_a_wrong_page_is_refused_by_its_parameter(ledger: Ledger, fields: dict[str, str], parameter: str) -> None:
    request = ListOrganizationsRequest(**fields)
    refusal = await refusal_of(ledger.accounts.ListOrganizations(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": parameter})


async def test_what_an_update_leaves_out_stays(ledger: Ledger) -> None:
    acme = await ledger.organization(display_name="Acme", plan=PLAN_ENTERPRISE, retention_days=200)

    renamed = await update(ledger, acme, display_name="Acme Ltd")
    retaining = await update(ledger, acme, payload_retained=True)
    no_longer = await update(ledger, acme, payload_retained=False)

    assert (renamed.display_name, renamed.plan, renamed.retention_days) == ("Acme Ltd", PLAN_ENTERPRISE, 200)
    assert (retaining.display_name, retaining.payload_retained) == ("Acme Ltd", True)
    assert no_longer.payload_retained is False
    assert await get(ledger, acme) == no_longer


async def test_a_plan_goes_up_and_down_with_its_retention(ledger: Ledger) -> None:
    acme = await ledger.organization()

    for settings, plan, retention_days in (
        ({"plan": PLAN_PRO}, PLAN_PRO, 90),
        ({"plan": PLAN_ENTERPRISE, "retention_days": 365}, PLAN_ENTERPRISE, 365),
        ({"retention_days": 30}, PLAN_ENTERPRISE, 30),
        ({"plan": PLAN_FREE}, PLAN_FREE, 3),
    ):
        changed = await update(ledger, acme, **settings)

        assert (changed.plan, changed.retention_days) == (plan, retention_days)
        assert await get(ledger, acme) == changed


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        pytest.param({}, "the request", id="nothing"),
        pytest.param({"display_name": ""}, "display_name", id="no name"),
        pytest.param({"display_name": "x" * 129}, "display_name", id="a long name"),
        pytest.param({"plan": PLAN_UNSPECIFIED}, "plan", id="no plan"),
        pytest.param({"plan": 9}, "plan", id="a plan of a newer contract"),
        pytest.param({"plan": PLAN_ENTERPRISE}, "retention_days", id="Enterprise without an agreement"),
        pytest.param({"plan": PLAN_ENTERPRISE, "retention_days": 366}, "retention_days", id="beyond a year"),
        pytest.param({"plan": PLAN_ENTERPRISE, "retention_days": 0}, "retention_days", id="no day"),
        pytest.param({"retention_days": 30}, "retention_days", id="an agreement on the free plan"),
        pytest.param({"spending_limit": SpendingLimit()}, "spending_limit.period", id="an empty limit"),
        pytest.param(
            {"spending_limit": SpendingLimit(amount="x", period=SPENDING_PERIOD_DAY)},
            "spending_limit.amount",
            id="a limit of no amount",
        ),
        pytest.param(
            {"spending_limit": HALF_A_DOLLAR_A_DAY, "clear_spending_limit": True},
            "clear_spending_limit",
            id="a limit and none",
        ),
    ],
)
async def test_an_update_that_makes_no_sense_is_refused_and_changes_nothing(
    ledger: Ledger, settings: dict[str, Any], field: str
) -> None:
    acme = await ledger.organization()
    before = await get(ledger, acme)

    request = UpdateOrganizationRequest(organization_id=acme, **{"payload_retained": True, **settings})
    if not settings:
        request = UpdateOrganizationRequest(organization_id=acme)
    refusal = await refusal_of(ledger.accounts.UpdateOrganization(request, metadata=OPERATOR))

    assert (refusal.code, refusal.reason, refusal.metadata) == (INVALID, "INVALID_REQUEST", {"field": field})
    assert await get(ledger, acme) == before


async def test_an_organization_renames_itself_but_its_plan_is_for_operators_to_say(ledger: Ledger) -> None:
    acme = await ledger.organization(plan=PLAN_ENTERPRISE, retention_days=200)
    own = bearer((await ledger.key(acme)).secret)

    renamed = await update(ledger, acme, own, display_name="Acme Ltd", payload_retained=True)

    assert (renamed.display_name, renamed.payload_retained) == ("Acme Ltd", True)
    for settings in ({"plan": PLAN_PRO}, {"retention_days": 365}, {"plan": PLAN_ENTERPRISE, "display_name": "x"}):
        request = UpdateOrganizationRequest(organization_id=acme, **settings)
        refusal = await refusal_of(ledger.accounts.UpdateOrganization(request, metadata=own))
        assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
    assert await get(ledger, acme) == renamed


async def test_an_organization_limits_what_all_its_keys_spend(ledger: Ledger) -> None:
    five_a_month = SpendingLimit(amount="5", period=SPENDING_PERIOD_MONTH)
    request = CreateOrganizationRequest(display_name="Acme", spending_limit=five_a_month)
    made = (await ledger.accounts.CreateOrganization(request, metadata=OPERATOR)).organization
    acme, own = made.organization_id, bearer((await ledger.key(made.organization_id)).secret)

    renamed = await update(ledger, acme, own, display_name="Acme Ltd")
    lowered = await update(ledger, acme, own, spending_limit=HALF_A_DOLLAR_A_DAY)
    lifted = await update(ledger, acme, own, clear_spending_limit=True)

    assert (made.spending_limit, renamed.spending_limit) == (five_a_month, five_a_month)
    assert lowered.spending_limit == HALF_A_DOLLAR_A_DAY
    assert not lifted.HasField("spending_limit")
    assert await get(ledger, acme) == lifted


async def test_a_key_with_a_limit_does_not_change_that_of_its_organization(ledger: Ledger) -> None:
    acme = await ledger.organization()
    own = bearer((await ledger.key(acme, spending_limit=HALF_A_DOLLAR_A_DAY)).secret)

    request = UpdateOrganizationRequest(organization_id=acme, clear_spending_limit=True)
    refusal = await refusal_of(ledger.accounts.UpdateOrganization(request, metadata=own))

    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
    assert (await update(ledger, acme, own, display_name="Acme Ltd")).display_name == "Acme Ltd"
