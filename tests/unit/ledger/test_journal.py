import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.books.journal import Account, Charge, Postings, after, charge, grant, spendable

PREPAID, PROMOTIONAL, RECEIVABLE = Account.PREPAID, Account.PROMOTIONAL, Account.RECEIVABLE


def test_a_charge_takes_promotional_credit_before_prepaid() -> None:
    balances = {PREPAID: 10, PROMOTIONAL: 4}

    assert charge(Charge(6, 6), balances) == {PROMOTIONAL: -4, PREPAID: -2, Account.REVENUE: 6}


def test_a_finished_call_is_charged_beyond_the_credit_there_is() -> None:
    assert charge(Charge(9, 9), {PREPAID: 7}) == {PREPAID: -7, RECEIVABLE: -2, Account.REVENUE: 9}


def test_a_discount_is_booked_beside_the_list_price() -> None:
    assert charge(Charge(3, 4), {PREPAID: 10}) == {PREPAID: -3, Account.REVENUE: 4, Account.DISCOUNT: -1}


def test_a_discount_of_everything_is_still_booked() -> None:
    assert charge(Charge(0, 4), {}) == {Account.REVENUE: 4, Account.DISCOUNT: -4}


def test_prepaid_credit_comes_from_payments_and_promotional_from_us() -> None:
    assert grant(PREPAID, 10, {}) == {PREPAID: 10, Account.PAYMENT: -10}
    assert grant(PROMOTIONAL, 10, {}) == {PROMOTIONAL: 10, Account.PROMOTION: -10}


@pytest.mark.parametrize(("owed", "left"), [(0, 10), (4, 6), (10, 0)])
def test_new_credit_first_settles_what_is_owed(owed: int, left: int) -> None:
    balances = after({RECEIVABLE: -owed}, grant(PREPAID, 10, {RECEIVABLE: -owed}))

    assert (balances[RECEIVABLE], spendable(balances)) == (0, left)


def test_a_grant_smaller_than_the_debt_leaves_nothing_to_spend() -> None:
    balances = after({RECEIVABLE: -9}, grant(PREPAID, 4, {RECEIVABLE: -9}))

    assert (balances[RECEIVABLE], spendable(balances)) == (-5, 0)


AMOUNTS = st.integers(1, 10**25)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), AMOUNTS, st.integers(0, 10**25)),
        st.tuples(st.sampled_from([PREPAID, PROMOTIONAL]), AMOUNTS, st.just(0)),
    ),
    max_size=12,
)


@given(events=EVENTS)
def test_every_entry_sums_to_zero_and_nobody_has_credit_and_debt_at_once(
    events: list[tuple[str | Account, int, int]],
) -> None:
    balances: dict[Account, int] = {}
    for what, amount, discount in events:
        postings: Postings
        if isinstance(what, Account):
            postings = grant(what, amount, balances)
        else:
            postings = charge(Charge(amount, amount + discount), balances)
        balances = after(balances, postings)

        assert sum(postings.values()) == 0
        assert balances.get(PREPAID, 0) >= 0
        assert balances.get(PROMOTIONAL, 0) >= 0
        assert balances.get(RECEIVABLE, 0) <= 0
        assert not (spendable(balances) and balances.get(RECEIVABLE, 0))


@given(events=st.lists(st.tuples(st.booleans(), AMOUNTS), max_size=8), order=st.randoms())
def test_the_order_of_grants_and_charges_does_not_matter(events: list[tuple[bool, int]], order: object) -> None:
    def balances_after(sequence: list[tuple[bool, int]]) -> dict[Account, int]:
        balances: dict[Account, int] = {}
        for is_grant, amount in sequence:
            postings = grant(PREPAID, amount, balances) if is_grant else charge(Charge(amount, amount), balances)
            balances = after(balances, postings)
        return {account: amount for account, amount in balances.items() if amount}

    shuffled = list(events)
    order.shuffle(shuffled)  # type: ignore[attr-defined]

    assert balances_after(shuffled) == balances_after(events)
