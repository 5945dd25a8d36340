"""Spending limits, value ↔ the two columns that keep one."""

from decimal import Decimal

from services.ledger.accounts.spending_limits import SpendingLimit, SpendingPeriod


def limit_to_row(limit: SpendingLimit | None) -> dict[str, object]:
    return {
        "spending_limit_pico": None if limit is None else limit.amount_pico,
        "spending_period": None if limit is None else int(limit.period),
    }


def limit_from_row(spending_limit_pico: Decimal | None, spending_period: int | None) -> SpendingLimit | None:
    if spending_limit_pico is None or spending_period is None:
        return None
    return SpendingLimit(int(spending_limit_pico), SpendingPeriod(spending_period))
