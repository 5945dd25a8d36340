"""Refunds as rows. Works inside its caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from psycopg import Connection

from services.ledger.books.journal import Account


class RefundKind(IntEnum):
    """What is given back. The numbers are those of `tollgate.ledger.v1.RefundKind`."""

    UNSPENT = 1
    CORRECTION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """What was given back."""

    organization_id: str
    refund_id: str
    kind: RefundKind
    amount_pico: int
    # Of UNSPENT, the grant; None for a correction.
    grant_id: str | None
    # Of CORRECTION, the credit; None otherwise.
    account: Account | None
    reason: str
    # The journal entry that booked it.
    sequence: int
    # What could be spent after it.
    balance_pico: int
    create_time: datetime


_FIND = """
    SELECT kind, amount_pico, grant_id, credit_kind, reason, sequence, balance_pico, create_time
      FROM ledger.credit_refund WHERE organization_id = %s::uuid AND refund_id = %s
"""
_ADD = """
    INSERT INTO ledger.credit_refund
           (organization_id, refund_id, kind, amount_pico, grant_id, credit_kind, reason, sequence, balance_pico,
            create_time)
    VALUES (%s::uuid, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


def find_refund(connection: Connection, organization_id: str, refund_id: str) -> Refund | None:
    row = connection.execute(_FIND, (organization_id, refund_id)).fetchone()
    if row is None:
        return None
    kind, amount_pico, grant_id, credit_kind, reason, sequence, balance_pico, create_time = row
    return Refund(
        organization_id=organization_id,
        refund_id=refund_id,
        kind=RefundKind(kind),
        amount_pico=int(amount_pico),
        grant_id=grant_id,
        account=None if credit_kind is None else Account(credit_kind),
        reason=reason,
        sequence=sequence,
        balance_pico=int(balance_pico),
        create_time=create_time,
    )


def add_refund(connection: Connection, refund: Refund) -> None:
    values = (
        refund.organization_id,
        refund.refund_id,
        int(refund.kind),
        refund.amount_pico,
        refund.grant_id,
        None if refund.account is None else int(refund.account),
        refund.reason,
        refund.sequence,
        refund.balance_pico,
        refund.create_time,
    )
    connection.execute(_ADD, values)
