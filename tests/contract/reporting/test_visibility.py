"""Who sees what, and what they are told about the rest."""

from uuid import uuid4

import grpc
import pytest

from tests.contract.reporting.books import NOW, Books, Customer, Key, uuid7_at
from tests.contract.reporting.reporting_server import Reporting, refusal_of

PERMISSION_DENIED, NOT_FOUND = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND


@pytest.fixture
def acme(books: Books) -> Customer:
    customer = books.customer()
    books.record(customer.call())
    return customer


@pytest.fixture
def globex(books: Books) -> Customer:
    customer = books.customer()
    books.record(customer.call(), customer.call())
    return customer


@pytest.fixture
def operator(books: Books) -> Key:
    return books.key(None)


async def test_an_organization_sees_its_own_calls_only(reporting: Reporting, acme: Customer, globex: Customer) -> None:
    for timezone in ("UTC", "Asia/Kolkata"):
        assert (await reporting.one_day(acme.key, days="1", timezone=timezone)).request_count == 1
        assert (await reporting.one_day(globex.key, days="1", timezone=timezone)).request_count == 2
    assert (await reporting.list(acme.key)).total == 1


async def test_naming_ones_own_organization_changes_nothing(reporting: Reporting, acme: Customer) -> None:
    day = await reporting.one_day(acme.key, days="1", organization_id=acme.organization_id.upper())

    assert day.request_count == 1


async def test_an_operator_sees_all_organizations_or_the_one_named(
    reporting: Reporting, operator: Key, acme: Customer, globex: Customer
) -> None:
    before = await reporting.one_day(operator, days="1")
    one = await reporting.one_day(operator, days="1", organization_id=globex.organization_id)
    unknown = await reporting.activity(operator, days="1", organization_id=str(uuid4()))

    assert before.request_count >= 3
    assert one.request_count == 2
    assert unknown == []


async def test_an_operator_sees_each_organization_within_its_own_plan(
    books: Books, reporting: Reporting, operator: Key
) -> None:
    free, pro = books.customer(retention_days=3), books.customer(retention_days=90)
    five_days_ago = NOW.replace(day=15, hour=7)
    books.record(
        free.call(at=five_days_ago, workflow="plans"),
        pro.call(at=five_days_ago, workflow="plans"),
        pro.call(at=five_days_ago, workflow="plans"),
    )

    for timezone in ("UTC", "Asia/Kolkata"):
        days = await reporting.activity(operator, days="10", timezone=timezone, group_by="workflow")

        shown = [row for day in days if day.date == "2026-05-15" for row in day.workflow_breakdown if row.id == "plans"]
        assert [row.request_count for row in shown] == [2]


@pytest.mark.parametrize("names_it", ["a stranger's", "nobody's"])
async def test_filters_that_name_what_is_not_ones_own_are_refused_whether_it_exists_or_not(
    books: Books, reporting: Reporting, acme: Customer, names_it: str
) -> None:
    stranger = books.customer()
    books.project(stranger.organization_id, "secret")
    exists = names_it == "a stranger's"
    filters = {
        "organization_id": stranger.organization_id if exists else str(uuid4()),
        "project_id": "secret" if exists else "nowhere",
        "api_key_id": stranger.key.api_key_id if exists else str(uuid4()),
    }

    for name, value in filters.items():
        for question in (reporting.activity(acme.key, **{name: value}), reporting.list(acme.key, **{name: value})):
            refusal = await refusal_of(question)

            assert (refusal.code, refusal.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")
            assert refusal.message.replace(value, "…").startswith("This key may not use ")


async def test_a_project_key_sees_its_project_only(books: Books, reporting: Reporting, acme: Customer) -> None:
    books.project(acme.organization_id, "lab")
    lab_key = books.key(acme.organization_id, "lab")
    in_lab, in_web = acme.call(project_id="lab"), acme.call(project_id="web")
    books.record(in_lab, in_web)

    day = await reporting.one_day(lab_key, days="1")
    listed = await reporting.list(lab_key)
    own = await reporting.get(lab_key, in_lab.request_id)
    of_project = await refusal_of(reporting.activity(lab_key, project_id="web"))
    of_key = await refusal_of(reporting.activity(lab_key, api_key_id=books.key(acme.organization_id, "web").api_key_id))
    in_path = await refusal_of(reporting.get(lab_key, in_web.request_id))

    assert day.request_count == 1
    assert [row.id for row in listed.requests] == [in_lab.request_id]
    assert own.request.id == in_lab.request_id
    assert {of_project.code, of_key.code} == {PERMISSION_DENIED}
    assert in_path.code is NOT_FOUND


async def test_a_read_only_key_reads(books: Books, reporting: Reporting, acme: Customer) -> None:
    key = books.key(acme.organization_id, read_only=True)

    assert (await reporting.one_day(key, days="1")).request_count == 1


async def test_a_call_in_a_path_is_not_found_in_the_same_words_whatever_the_cause(
    books: Books, reporting: Reporting, acme: Customer
) -> None:
    free = books.customer(retention_days=3)
    stranger = books.customer()
    foreign = stranger.call()
    past_retention = free.call(at=NOW.replace(day=17, minute=29))
    books.record(foreign, past_retention)

    cases = [
        (acme.key, foreign.request_id),
        (acme.key, uuid7_at(NOW)),
        (acme.key, str(uuid4())),
        (acme.key, "no-uuid"),
        (free.key, past_retention.request_id),
    ]
    for key, request_id in cases:
        refusal = await refusal_of(reporting.get(key, request_id))

        assert (refusal.code, refusal.reason) == (NOT_FOUND, "NOT_FOUND")
        assert refusal.message == f"There is no request {request_id}."


async def test_an_operator_names_the_organization_whose_calls_to_show(
    reporting: Reporting, operator: Key, acme: Customer
) -> None:
    unnamed = await refusal_of(reporting.list(operator))
    named = await reporting.list(operator, organization_id=acme.organization_id)
    one = await reporting.get(operator, named.requests[0].id, acme.organization_id)

    assert (unnamed.reason, unnamed.field) == ("INVALID_REQUEST", "organization_id")
    assert one.request == named.requests[0]
