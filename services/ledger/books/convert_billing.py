"""Credit on the wire ↔ values of the ledger."""

from services.common.authentication import Caller
from services.common.errors import InvalidRequestError
from services.common.money import pico_from_usd, usd_from_pico
from services.ledger.books.billing import NewGrant, NewRefund
from services.ledger.books.book_reading import RemainingGrant
from services.ledger.books.journal import SPENDABLE, Account, spendable
from services.ledger.convert_values import choice, named_choice, optional_time_to_proto, time_from_proto, time_to_proto
from services.ledger.storage.books.books import Standing
from services.ledger.storage.books.credits import CreditGrant, CreditSource
from services.ledger.storage.books.refunds import Refund, RefundKind
from tollgate.ledger.v1 import billing_service_pb2 as wire

# Kinds of credit have the numbers of their accounts.
_KINDS = {Account.PREPAID: wire.CREDIT_KIND_PREPAID, Account.PROMOTIONAL: wire.CREDIT_KIND_PROMOTIONAL}
_SOURCES = {
    CreditSource.GRANT: wire.CREDIT_SOURCE_GRANT,
    CreditSource.CORRECTION: wire.CREDIT_SOURCE_CORRECTION,
}
_REFUND_KINDS = {
    RefundKind.UNSPENT: wire.REFUND_KIND_UNSPENT,
    RefundKind.CORRECTION: wire.REFUND_KIND_CORRECTION,
}


def new_grant_from_proto(request: wire.GrantCreditsRequest, caller: Caller) -> NewGrant:
    return NewGrant(
        organization_id=caller.one_organization(request.organization_id),
        grant_id=request.grant_id,
        account=_account("kind", request.kind),
        amount_pico=_amount(request.amount),
        expire_time=time_from_proto("expire_time", request.expire_time) if request.HasField("expire_time") else None,
    )


def new_refund_from_proto(request: wire.RefundCreditsRequest, caller: Caller) -> NewRefund:
    kind = named_choice("kind", RefundKind, request.kind)
    is_correction = kind is RefundKind.CORRECTION
    if is_correction and request.grant_id:
        raise InvalidRequestError("grant_id", "must be left out of a correction")
    if not is_correction and request.credit_kind:
        raise InvalidRequestError("credit_kind", "must be left out unless a charge is corrected")
    return NewRefund(
        organization_id=caller.one_organization(request.organization_id),
        refund_id=request.refund_id,
        kind=kind,
        amount_pico=_amount(request.amount),
        grant_id=None if is_correction else request.grant_id,
        account=_account("credit_kind", request.credit_kind) if is_correction else None,
        reason=request.reason,
    )


def grant_to_proto(grant: CreditGrant) -> wire.GrantCreditsResponse:
    return wire.GrantCreditsResponse(
        organization_id=grant.organization_id,
        grant_id=grant.grant_id,
        amount=usd_from_pico(grant.amount_pico),
        kind=_KINDS[grant.account],
        create_time=time_to_proto(grant.create_time),
        balance=usd_from_pico(grant.balance_pico),
        expire_time=optional_time_to_proto(grant.expire_time),
    )


def remaining_grant_to_proto(row: RemainingGrant) -> wire.CreditGrant:
    grant = row.grant
    return wire.CreditGrant(
        grant_id=grant.grant_id,
        source=_SOURCES[grant.source],
        kind=_KINDS[grant.account],
        amount=usd_from_pico(grant.amount_pico),
        remaining=usd_from_pico(row.remaining_pico),
        create_time=time_to_proto(grant.create_time),
        expire_time=optional_time_to_proto(grant.expire_time),
        sequence=str(grant.sequence),
    )


def refund_to_proto(refund: Refund) -> wire.RefundCreditsResponse:
    return wire.RefundCreditsResponse(
        organization_id=refund.organization_id,
        refund_id=refund.refund_id,
        amount=usd_from_pico(refund.amount_pico),
        kind=_REFUND_KINDS[refund.kind],
        create_time=time_to_proto(refund.create_time),
        balance=usd_from_pico(refund.balance_pico),
        sequence=str(refund.sequence),
    )


def standing_to_proto(organization_id: str, standing: Standing) -> wire.GetBalanceResponse:
    balances = standing.balances
    return wire.GetBalanceResponse(
        organization_id=organization_id,
        balance=usd_from_pico(spendable(balances)),
        prepaid=usd_from_pico(balances.get(Account.PREPAID, 0)),
        promotional=usd_from_pico(balances.get(Account.PROMOTIONAL, 0)),
        receivable=usd_from_pico(-balances.get(Account.RECEIVABLE, 0)),
        sequence=str(standing.sequence),
        held=usd_from_pico(standing.held_pico),
    )


def _account(field: str, kind: int) -> Account:
    account = choice(field, Account, kind, default=Account.PREPAID)
    if account not in SPENDABLE:
        raise InvalidRequestError(field, f"has no choice {kind}")
    return account


def _amount(text: str) -> int:
    try:
        return pico_from_usd(text)
    except ValueError as error:
        raise InvalidRequestError("amount", str(error)) from None
