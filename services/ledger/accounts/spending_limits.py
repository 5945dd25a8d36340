"""How much credit a key or an organization may spend, and how often anew. A value that exists is valid."""

from dataclasses import dataclass
from enum import IntEnum

from services.common.errors import InvalidRequestError
from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.accounts.audit import Settings

SPENDING_LIMIT_PICO_MAX = 9_000_000 * 10**12


class SpendingPeriod(IntEnum):
    """How often a limit begins anew. The numbers are those of `tollgate.ledger.v1.SpendingPeriod`."""

    DAY = 1
    MONTH = 2
    TOTAL = 3


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """How much credit a key or an organization may spend in a period.

    Zero is nothing; no limit at all is None in its place.
    """

    amount_pico: int
    period: SpendingPeriod

    @classmethod
    def of(cls, amount: str, period: SpendingPeriod) -> "SpendingLimit":
        """From USD. Raises InvalidRequestError."""
        try:
            amount_pico = pico_from_usd(amount)
        except ValueError as error:
            raise InvalidRequestError("spending_limit.amount", "must be USD with at most 12 decimals") from error
        if amount_pico > SPENDING_LIMIT_PICO_MAX:
            raise InvalidRequestError("spending_limit.amount", "must be at most 9000000")
        return cls(amount_pico, period)


def limit_settings(limit: SpendingLimit | None) -> Settings:
    """As the audit log keeps them."""
    return {
        "spending_limit": None if limit is None else usd_from_pico(limit.amount_pico),
        "spending_period": None if limit is None else limit.period.name,
    }


def require_one_limit(limit: SpendingLimit | None, *, clear: bool) -> None:
    """Raises InvalidRequestError for a change that sets a limit and takes it away."""
    if clear and limit is not None:
        raise InvalidRequestError("clear_spending_limit", "contradicts spending_limit; leave one out")
