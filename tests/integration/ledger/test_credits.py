"""Credit is spent in its order, and ends at its moment."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.common.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from services.ledger.books.billing import NewGrant, NewRefund
from services.ledger.books.journal import Account, EntryKind
from services.ledger.books.statement import Period
from services.ledger.storage.books.journal_reading import BookedEntry
from services.ledger.storage.books.refunds import RefundKind
from tests.books_rig import BooksRig, a_books_rig
from tests.conftest import Database
from tests.usage_builders import COST_PICO, a_record, add_organization

PREPAID, PROMOTIONAL, RECEIVABLE = Account.PREPAID, Account.PROMOTIONAL, Account.RECEIVABLE
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(scope="module")
async def rig(database: Database) -> AsyncIterator[BooksRig]:
    async with a_books_rig(database, discount="0") as running:
        yield running


@pytest.fixture
def organization_id(database: Database) -> str:
    return add_organization(database)


async def grant(
    rig: BooksRig, organization_id: str, grant_id: str, amount_pico: int, account: Account = PREPAID, **fields: Any
) -> None:
    new = NewGrant(
        organization_id=organization_id, grant_id=grant_id, account=account, amount_pico=amount_pico, **fields
    )
    await rig.billing.grant(new)


def a_refund(organization_id: str, **fields: Any) -> NewRefund:
    values: dict[str, Any] = {
        "refund_id": "back",
        "kind": RefundKind.UNSPENT,
        "amount_pico": 1,
        "grant_id": "paid",
        "account": None,
        "reason": "",
    }
    return NewRefund(organization_id=organization_id, **values | fields)


def a_correction(organization_id: str, **fields: Any) -> NewRefund:
    correction = {"kind": RefundKind.CORRECTION, "grant_id": None, "account": PREPAID, "reason": "wrong model"}
    return a_refund(organization_id, **correction | fields)


async def spend(rig: BooksRig, organization_id: str, calls: int = 1) -> None:
    await rig.record([a_record(organization_id, at=rig.clock()) for _ in range(calls)])


async def entries(rig: BooksRig, organization_id: str) -> list[BookedEntry]:
    return await rig.reader.entries(UUID(organization_id), 0, 1_000)


async def test_promotional_credit_is_spent_before_prepaid_and_of_each_what_ends_first(
    rig: BooksRig, organization_id: str
) -> None:
    def ends(seconds: int) -> datetime:
        return rig.clock() + timedelta(seconds=seconds)

    await grant(rig, organization_id, "paid", COST_PICO)
    await grant(rig, organization_id, "paid-ends", COST_PICO, expire_time=ends(900))
    await grant(rig, organization_id, "gift-stays", COST_PICO, PROMOTIONAL)
    await grant(rig, organization_id, "gift-late", COST_PICO, PROMOTIONAL, expire_time=ends(800))
    await grant(rig, organization_id, "gift-soon", COST_PICO, PROMOTIONAL, expire_time=ends(700))

    order = []
    before = await rig.remaining(organization_id)
    for _ in range(5):
        await spend(rig, organization_id)
        after = await rig.remaining(organization_id)
        order += [grant_id for grant_id, left in after.items() if left != before[grant_id]]
        before = after

    assert order == ["gift-soon", "gift-late", "gift-stays", "paid-ends", "paid"]
    assert set(before.values()) == {0}


async def test_a_grant_that_comes_later_and_ends_sooner_is_spent_first(rig: BooksRig, organization_id: str) -> None:
    await grant(rig, organization_id, "early", 2 * COST_PICO, PROMOTIONAL)
    await spend(rig, organization_id)
    soon = rig.clock() + timedelta(seconds=60)
    await grant(rig, organization_id, "soon", 2 * COST_PICO, PROMOTIONAL, expire_time=soon)
    await spend(rig, organization_id)

    assert await rig.remaining(organization_id) == {"early": COST_PICO, "soon": COST_PICO}


async def test_credit_can_be_spent_a_microsecond_before_its_end_and_not_at_it(
    rig: BooksRig, organization_id: str
) -> None:
    ends = rig.clock() + timedelta(seconds=10)
    await grant(rig, organization_id, "gift", 3 * COST_PICO, PROMOTIONAL, expire_time=ends)

    rig.clock.now = ends - MICROSECOND
    await spend(rig, organization_id)
    just_before = (await rig.balances(organization_id))[PROMOTIONAL]
    rig.clock.now = ends
    at_its_end = await rig.balances(organization_id)
    await spend(rig, organization_id)

    assert just_before == 2 * COST_PICO
    assert PROMOTIONAL not in at_its_end
    assert (await rig.balances(organization_id))[RECEIVABLE] == -COST_PICO
    assert await rig.remaining(organization_id) == {"gift": 0}


async def test_a_charge_that_comes_after_the_end_finds_it_booked_at_its_moment(
    rig: BooksRig, organization_id: str
) -> None:
    ends = rig.clock() + timedelta(seconds=10)
    await grant(rig, organization_id, "gift", 3 * COST_PICO, PROMOTIONAL, expire_time=ends)
    rig.clock.step(3_600)

    await spend(rig, organization_id)

    granted, ended, charged = await entries(rig, organization_id)
    assert (ended.kind, ended.reference, ended.create_time) == (EntryKind.EXPIRY, "gift", ends)
    assert ended.postings == {PROMOTIONAL: -3 * COST_PICO, Account.EXPIRED: 3 * COST_PICO}
    assert (granted.sequence, charged.sequence, charged.create_time) == (1, 3, rig.clock())
    assert (ended.balance_pico, charged.balance_pico) == (0, -COST_PICO)
    assert await rig.differences(organization_id) == []


async def test_what_ended_is_booked_without_anybody_asking_and_once(rig: BooksRig, organization_id: str) -> None:
    for seconds in (10, 20):
        ends = rig.clock() + timedelta(seconds=seconds)
        await grant(rig, organization_id, f"gift-{seconds}", seconds, PROMOTIONAL, expire_time=ends)
    rig.clock.step(19.999999)
    await rig.ender.make_pass()
    rig.clock.step(100)
    for _ in range(2):
        await rig.ender.make_pass()

    ended = [entry.reference for entry in await entries(rig, organization_id) if entry.kind is EntryKind.EXPIRY]
    assert ended == ["gift-10", "gift-20"]
    assert await rig.differences(organization_id) == []


async def test_credit_that_was_spent_ends_without_a_trace(rig: BooksRig, organization_id: str) -> None:
    ends = rig.clock() + timedelta(seconds=10)
    await grant(rig, organization_id, "gift", COST_PICO, PROMOTIONAL, expire_time=ends)
    await spend(rig, organization_id)
    rig.clock.step(11)

    assert await rig.ender.make_pass() == 1
    assert await rig.ender.make_pass() == 0
    assert len(await entries(rig, organization_id)) == 2


async def test_a_late_clock_books_nothing_before_what_is_there(rig: BooksRig, organization_id: str) -> None:
    await grant(rig, organization_id, "first", 5)
    first_time = rig.clock()
    rig.clock.step(-30)
    await grant(rig, organization_id, "second", 5)
    rig.clock.step(30)

    assert [entry.create_time for entry in await entries(rig, organization_id)] == [first_time, first_time]


async def test_credit_that_has_ended_cannot_be_granted(rig: BooksRig, organization_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="expire_time must be in the future"):
        await grant(rig, organization_id, "gift", 5, PROMOTIONAL, expire_time=rig.clock())


async def test_a_grant_is_still_the_same_after_its_end(rig: BooksRig, organization_id: str) -> None:
    ends = rig.clock() + timedelta(seconds=10)
    for seconds in (0, 20):
        rig.clock.step(seconds)
        await grant(rig, organization_id, "gift", 5, PROMOTIONAL, expire_time=ends)

    with pytest.raises(AlreadyExistsError):
        await grant(rig, organization_id, "gift", 5, PROMOTIONAL, expire_time=ends + MICROSECOND)


async def test_what_is_unspent_of_a_paid_grant_goes_back_and_no_more(rig: BooksRig, organization_id: str) -> None:
    await grant(rig, organization_id, "paid", 3 * COST_PICO)
    await spend(rig, organization_id)

    with pytest.raises(InvalidRequestError, match=r"amount must be at most 0\.0075, which is unspent of grant paid"):
        await rig.billing.refund(a_refund(organization_id, amount_pico=2 * COST_PICO + 1))
    refunded = await rig.billing.refund(a_refund(organization_id, amount_pico=2 * COST_PICO))
    again = await rig.billing.refund(a_refund(organization_id, amount_pico=2 * COST_PICO))

    assert again == refunded
    assert await rig.remaining(organization_id) == {"paid": 0}
    assert (await rig.balances(organization_id))[Account.PAYMENT] == -COST_PICO
    assert await rig.differences(organization_id) == []


@pytest.mark.parametrize("account", [PROMOTIONAL, None])
async def test_only_what_was_paid_goes_back(rig: BooksRig, organization_id: str, account: Account | None) -> None:
    if account is None:
        await spend(rig, organization_id)
        await rig.billing.refund(a_correction(organization_id, refund_id="paid", amount_pico=COST_PICO))
    else:
        await grant(rig, organization_id, "paid", 5, account)

    with pytest.raises(InvalidRequestError, match="grant_id must name a grant that was paid for"):
        await rig.billing.refund(a_refund(organization_id))


async def test_a_refund_of_a_grant_that_does_not_exist_is_refused(rig: BooksRig, organization_id: str) -> None:
    with pytest.raises(NotFoundError):
        await rig.billing.refund(a_refund(organization_id))


async def test_a_charge_is_corrected_by_new_credit_that_first_settles_what_is_owed(
    rig: BooksRig, organization_id: str
) -> None:
    await grant(rig, organization_id, "paid", COST_PICO)
    await spend(rig, organization_id, calls=2)

    await rig.billing.refund(a_correction(organization_id, amount_pico=2 * COST_PICO))

    balances = await rig.balances(organization_id)
    assert (balances[PREPAID], balances[Account.ADJUSTMENT]) == (COST_PICO, -2 * COST_PICO)
    assert balances[Account.REVENUE] == 2 * COST_PICO
    assert await rig.remaining(organization_id) == {"paid": 0, "back": COST_PICO}
    with pytest.raises(InvalidRequestError, match="amount must be at most 0, which was charged and not corrected"):
        await rig.billing.refund(a_correction(organization_id, refund_id="more", amount_pico=1))
    assert await rig.differences(organization_id) == []


@pytest.mark.parametrize("change", [{"amount_pico": 2}, {"reason": "because"}, {"grant_id": "other"}])
async def test_a_refund_id_stands_for_one_refund(rig: BooksRig, organization_id: str, change: dict[str, Any]) -> None:
    for grant_id in ("paid", "other"):
        await grant(rig, organization_id, grant_id, 5)
    await rig.billing.refund(a_refund(organization_id))

    with pytest.raises(AlreadyExistsError):
        await rig.billing.refund(a_refund(organization_id, **change))


async def test_a_correction_and_a_grant_do_not_share_an_id(rig: BooksRig, organization_id: str) -> None:
    await grant(rig, organization_id, "paid", 5)
    await spend(rig, organization_id)
    await rig.billing.refund(a_correction(organization_id))

    with pytest.raises(AlreadyExistsError):
        await rig.billing.refund(a_correction(organization_id, refund_id="paid"))
    with pytest.raises(AlreadyExistsError):
        await grant(rig, organization_id, "back", 1)


async def test_a_statement_joins_what_was_used_with_what_was_booked(rig: BooksRig, organization_id: str) -> None:
    """A call of yesterday that came today is yesterday's usage and today's booking."""
    await grant(rig, organization_id, "paid", 10 * COST_PICO)
    yesterday = rig.clock() - timedelta(days=1)
    await rig.record([a_record(organization_id, at=yesterday), a_record(organization_id, at=rig.clock())])
    await rig.billing.refund(a_refund(organization_id, amount_pico=COST_PICO))

    days = [Period(day, day) for day in (yesterday.date(), rig.clock().date())]
    first, second = [await rig.reader.statement(UUID(organization_id), day) for day in days]

    assert (first.total.charged_pico, first.balance.usage_pico, first.last_sequence) == (COST_PICO, 0, 0)
    assert (second.total.charged_pico, second.balance.usage_pico) == (COST_PICO, 2 * COST_PICO)
    assert (first.balance.closing_pico, second.balance.opening_pico, second.balance.closing_pico) == (
        0,
        0,
        7 * COST_PICO,
    )
    assert (second.balance.granted_prepaid_pico, second.balance.refunded_pico) == (10 * COST_PICO, COST_PICO)
    assert [entry.kind for entry in second.movements] == [EntryKind.GRANT, EntryKind.REFUND]
    assert (second.first_sequence, second.last_sequence) == (1, 3)
